"""Access control: API keys, callers, and what each caller may ask for (voices, priority, rate limits)."""
