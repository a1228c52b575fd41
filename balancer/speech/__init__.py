"""The speech service: turns a request into audio, from the cache, an identical running request, or a worker."""
