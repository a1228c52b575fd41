"""Reads the query of a URL like a JSON body."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, TypeVar, get_args
from urllib.parse import parse_qsl

from pydantic import BaseModel

from balancer.api.reading import MAX_QUOTED_NAME, validate_body
from balancer.errors import InvalidRequestError

Body = TypeVar("Body", bound=BaseModel)

Query = Sequence[tuple[str, str]]
"""The names and values of a query, in their order."""

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,39})(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,3})?")
"""A number of JSON, of no absurd length."""


def parse_query(query_string: bytes) -> Query:
    """The fields of a query. Raises InvalidRequestError."""
    try:
        return parse_qsl(query_string.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise InvalidRequestError("the query of the URL is not UTF-8 in percent-encoding") from error


def to_query(fields: dict[str, Any]) -> Query:
    """The query that `body_of_query` makes a body with these fields of. A field that is None is left out."""
    return [(name, _to_text(value)) for name, value in fields.items() if value is not None]


def body_of_query(query: Query, schema: type[Body]) -> Body:
    """A query, validated as the JSON body with these fields would be. Raises InvalidRequestError."""
    fields: dict[str, Any] = {}
    for name, text in query:
        if name in fields:
            raise InvalidRequestError("a field of the query is given twice", param=name[:MAX_QUOTED_NAME])
        fields[name] = _to_value(text) if _has_values(schema, name) else text
    return validate_body(fields, schema)


def _has_values(schema: type[BaseModel], name: str) -> bool:
    """Whether a field is a number or a truth value; an undeclared one, a parameter of the engine, may be."""
    field = schema.model_fields.get(name)
    if field is None:
        return True
    return not {int, float, bool}.isdisjoint({field.annotation, *get_args(field.annotation)})


def _to_value(text: str) -> str | float | bool:
    """The value that JSON has for this text, if it is a number or a truth value."""
    value: str | float | bool = json.loads(text) if text in ("true", "false") or _NUMBER.fullmatch(text) else text
    return value


def _to_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
