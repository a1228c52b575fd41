"""Tags in brackets, and control syntax."""

from __future__ import annotations

import pytest

from balancer.text.marks import pause_mark, tag_mark
from balancer.text.markup.brackets import disarm, take

TAGS = ("[laugh]",)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("[pause]", 0.5), ("[PAUSE 0.8s]", 0.8), ("[break: 300 ms]", 0.3), ("[wait=2 seconds]", 2), ("[silence 99]", 10)],
)
def test_a_pause(text: str, seconds: float) -> None:
    assert take(f"a{text}b", TAGS) == f"a{pause_mark(seconds)}b"


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("[laugh]", tag_mark(TAGS, "[laugh]")),
        ("[LAUGH]", tag_mark(TAGS, "[laugh]")),
        ("[sigh]", " "),
        ("[clear throat]", " "),
        ("[note]", "[note]"),
        ("[x](y)", "[x](y)"),
        ("<|end|>", " "),
        ("[STOP]", " "),
    ],
)
def test_tags_and_control_syntax_are_taken(text: str, taken: str) -> None:
    assert take(text, TAGS) == taken


@pytest.mark.parametrize(
    ("text", "disarmed"),
    [
        ("plain", "plain"),
        ("[laugh]", "[laugh]"),
        ("[sigh]", "(sigh)"),
        ("<|end|>", " "),
        ("<|<|a|>|>", " "),
        ("[[STOP]STOP]", "( STOP)"),
    ],
)
def test_no_control_syntax_is_left(text: str, disarmed: str) -> None:
    assert disarm(text, TAGS) == disarmed
