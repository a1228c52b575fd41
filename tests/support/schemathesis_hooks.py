"""Teaches schemathesis to write JSON Lines, which OpenAPI cannot describe."""

from __future__ import annotations

import json

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def json_lines(_: schemathesis.SerializationContext, value: object) -> bytes:
    """The items of an array as lines; any other value as a single line, which the server refuses."""
    lines = value if isinstance(value, list) else [value]
    return "\n".join(map(json.dumps, lines)).encode()
