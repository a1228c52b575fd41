"""The query of a URL as a body."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest

from balancer.api.query import body_of_query, parse_query, to_query
from balancer.errors import InvalidRequestError
from balancer.requests.bodies import TtsBody


def body(query: str) -> TtsBody:
    return body_of_query(parse_query(query.encode()), TtsBody)


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("text=Hi+there%2C%20you.", {"text": "Hi there, you."}),
        ("text=5&voice=1&character=1", {"text": "5", "voice": "1", "character": "1"}),
        ("text=true&stream=true&normalize=false", {"text": "true", "stream": True, "normalize": False}),
        ("text=Hi.&speed=1.5&seed=7&format=mp3", {"text": "Hi.", "speed": 1.5, "seed": 7, "format": "mp3"}),
        ("text=Hi.&warmth=0.5&top_k=3&language=de", {"text": "Hi.", "warmth": 0.5, "top_k": 3, "language": "de"}),
        ("text=Hi.&deadline_ms=1e3&priority=batch", {"text": "Hi.", "deadline_ms": 1e3, "priority": "batch"}),
        ("text=Z%C3%BCrich+%F0%9F%98%80", {"text": "Zürich \U0001f600"}),
    ],
)
def test_a_query_is_the_body_with_these_fields(query: str, fields: dict[str, Any]) -> None:
    assert body(query) == TtsBody.model_validate(fields)
    assert body(urlencode(to_query(fields))) == TtsBody.model_validate(fields)


@pytest.mark.parametrize(
    ("query", "param", "message"),
    [
        ("", "text", "text: Field required"),
        ("text=", "text", "text: is empty"),
        ("text=Hi.&speed=fast", "speed", "speed: Input should be a valid number"),
        ("text=Hi.&speed=1_0", "speed", "speed: Input should be a valid number"),
        ("text=Hi.&speed=9", "speed", "speed: Input should be less than or equal to 4"),
        ("text=Hi.&speed=1e999", "speed", "speed: Input should be a finite number"),
        ("text=Hi.&seed=1.0", "seed", "seed: Input should be a valid integer"),
        ("text=Hi.&seed=", "seed", "seed: Input should be a valid integer"),
        ("text=Hi.&stream=1", "stream", "stream: Input should be a valid boolean"),
        ("text=Hi.&stream=yes", "stream", "stream: Input should be a valid boolean"),
        ("text=Hi.&format=ogg", "format", "format: Input should be 'mp3'"),
        ("text=Hi.&text=Hi.", "text", "a field of the query is given twice"),
        ("text=%FF", None, "not UTF-8"),
        ("text=Hi%00", "text", "control character"),
        ("text=Hi.&%0A=1", r"\n", "unknown field"),
    ],
)
def test_a_query_is_refused_as_the_body_would_be(query: str, param: str | None, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message) as caught:
        body(query)
    assert caught.value.param == param


def test_a_field_that_is_none_is_left_out() -> None:
    assert to_query({"text": "Hi.", "seed": None, "speed": 1.5, "stream": True}) == [
        ("text", "Hi."),
        ("speed", "1.5"),
        ("stream", "true"),
    ]
