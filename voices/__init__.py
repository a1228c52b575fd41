"""Voices: one folder each, described by its voice.toml, read by the registry."""
