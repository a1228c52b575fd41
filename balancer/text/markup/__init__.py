"""Markup becomes what is meant to be heard: Markdown, HTML, entities, SSML, and tags in brackets."""
