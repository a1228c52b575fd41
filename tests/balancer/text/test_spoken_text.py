"""What is to be said, written as one text with the pauses beside it."""

from __future__ import annotations

import pytest

from balancer.text.spoken_text import Pause, Span, SpokenText


@pytest.mark.parametrize(
    ("spans", "text", "pauses"),
    [
        ([Span("One.")], "One.", []),
        ([], "", []),
        ([Span("One", 0.2), Span("two.")], "One, two.", [(5, 0.2)]),
        ([Span("One", 2.0), Span("two.")], "One. two.", [(5, 2.0)]),
        ([Span("One,", 2.0), Span("two.")], "One, two.", [(5, 2.0)]),
        ([Span("One", 0.0), Span("two.")], "One two.", []),
        ([Span("", 1.0), Span("One", 2.0), Span("")], "One", [(0, 1.0), (3, 2.0)]),
        ([Span("One", 1.0), Span("", 2.0), Span("two")], "One. two", [(5, 3.0)]),
        ([Span("One", ends_paragraph=True), Span("two")], "One.\n\ntwo", []),
        ([Span("One", 2.0), Span("", ends_paragraph=True), Span("two")], "One.\n\ntwo", [(6, 2.0)]),
    ],
)
def test_a_text_and_its_pauses(spans: list[Span], text: str, pauses: list[tuple[int, float]]) -> None:
    spoken = SpokenText(tuple(spans))
    assert spoken.plain == text
    assert [(pause.position, pause.seconds) for pause in spoken.pauses] == pauses


def test_pauses_together_have_a_limit_that_grows_with_the_text() -> None:
    short = SpokenText(tuple(Span("a", 10.0) for _ in range(10)))
    assert short.pauses == (Pause(3, 10.0), Pause(6, 10.0), Pause(9, 10.0))
    long = SpokenText(tuple(Span("a" * 100, 10.0) for _ in range(10)))
    assert len(long.pauses) == 10
