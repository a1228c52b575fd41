"""Audio formats and their encoders."""
