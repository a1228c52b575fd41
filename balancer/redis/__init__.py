"""The location of Redis, and its client."""
