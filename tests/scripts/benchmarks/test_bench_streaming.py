"""The benchmark of streams, with the embedded voice."""

from __future__ import annotations

import re
import time

import pytest

from scripts.benchmarks import streaming
from scripts.benchmarks.streaming import (
    ONE_MODEL,
    STREAMED,
    WHOLE,
    Heard,
    Held,
    Run,
    find_held,
    report,
    run_once,
    text_of,
)
from tests.support.bench import TIMEOUT, bench


def test_each_listener_has_a_text_of_its_own() -> None:
    texts = [text_of(number, 4) for number in range(50)]
    assert len(set(texts)) == 50


def test_a_row_compares_a_side_with_whole_answers() -> None:
    whole = Run(WHOLE, 1, 2.0, [Heard(2.0, 2.0, 10.0, 0, 0.0)])
    streamed = Run(STREAMED, 1, 2.5, [Heard(0.5, 2.5, 10.0, 2, 0.75)])
    assert report([streamed, whole]).splitlines()[2:] == [
        "| 1 | whole | 2.00 | 1.000 | 2.00 | 5.00 | 1.00 | 0.0 | 0.00 |",
        "| 1 | streamed | 0.50 | 0.250 | 2.50 | 4.00 | 0.80 | 2.0 | 0.75 |",
    ]


async def test_listeners_are_added_until_one_has_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    async def run_once(_: str, side: str, listeners: int, *__: object) -> Run:
        tried.append(listeners)
        gaps = 1 if side == STREAMED and listeners > 5 else 0
        return Run(side, listeners, 2.0, [Heard(0.1, 2.0, 3.0, gaps, 0.1 * gaps)] * listeners)

    monkeypatch.setattr(streaming, "run_once", run_once)
    held = await find_held("http://somewhere", 4, 24_000, 1, 0.0)
    assert held == Held(5, 0.1, 7.5)
    assert tried == [1, 1, 2, 4, 8, 6, 5, 5]
    assert "first sound after 0.10 s" in str(held)
    assert str(held).endswith("ratio 0.67")


async def test_listeners_arrive_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    arrivals: list[float] = []

    async def listen(*_: object, **__: object) -> Heard:
        arrivals.append(time.monotonic() - began)
        return Heard(0.1, 1.0, 1.0, 0, 0.0)

    monkeypatch.setattr(streaming, "listen", listen)
    run = await run_once("http://somewhere", STREAMED, 4, 2, 0, 24_000, arrival_seconds=0.2)
    assert len(run.heard) == 4
    # A sleep never ends early.
    assert all(arrival >= 0.05 * number for number, arrival in enumerate(arrivals))


def test_all_sides_are_measured() -> None:
    with bench("streaming", "--workers", "1", "--listeners", "2", "--rounds", "1", "--sentences", "2") as program:
        process = program.start()
        output, messages = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, messages
        assert program.leftovers() == []
    rows = re.findall(r"\| 2 \| (whole|streamed|streamed by one model) \| ([\d.]+) ", output)
    assert [side for side, _ in rows] == [WHOLE, STREAMED, ONE_MODEL]
    assert all(float(first) > 0 for _, first in rows)
