"""Checkpoints on this host: catalogue, integrity, fingerprint."""
