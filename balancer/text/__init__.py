"""Texts, before they are spoken: what people send becomes what is to be said, in segments. Pure."""
