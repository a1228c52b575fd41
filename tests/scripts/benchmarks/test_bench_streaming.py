"""The benchmark of streams, with the embedded voice."""

from __future__ import annotations

import re

from scripts.benchmarks.streaming import ONE_MODEL, STREAMED, WHOLE, Heard, Run, report, text_of
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


def test_all_sides_are_measured() -> None:
    with bench("streaming", "--listeners", "2", "--rounds", "1", "--sentences", "3") as program:
        process = program.start()
        output, messages = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, messages
        assert program.leftovers() == []
    rows = re.findall(r"\| 2 \| (whole|streamed|streamed by one model) \| ([\d.]+) ", output)
    assert [side for side, _ in rows] == [WHOLE, STREAMED, ONE_MODEL]
    assert all(float(first) > 0 for _, first in rows)
