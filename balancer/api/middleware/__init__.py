"""ASGI middleware that wraps the whole API, one class per module."""
