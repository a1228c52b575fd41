"""ASGI middleware around the whole API, one class per module."""
