"""Audio: PCM, formats and codecs, encoders of files and of streams, joining of segments, buffers and their budgets."""
