"""Texts, before they are spoken. Pure: text in, text out."""
