"""What a maker of requests has to know besides the API's description: how JSON lines are written."""

from __future__ import annotations

import json

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def json_lines(_: schemathesis.SerializationContext, value: object) -> bytes:
    """The items of an array as lines; anything else as it is, to be refused."""
    lines = value if isinstance(value, list) else [value]
    return "\n".join(map(json.dumps, lines)).encode()
