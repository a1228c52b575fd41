"""Voices: each has a folder with a voice.toml, which the registry reads."""
