"""The speech service: a request to finished audio, from the cache, an identical request, or the workers."""
