"""Who may ask, and for how much: API keys, voices and priorities per key, rate limits."""
