"""The listeners of the fault test of streams notice whatever is not whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scripts.faults.streams import (
    SAMPLE_RATE,
    Heard,
    Joins,
    Listeners,
    check_streams,
    client,
    draw_texts,
    joins_of,
    unexplained_gaps,
)
from scripts.support.stream_twins import Twin, hear_undisturbed
from tests.support.harness import start_balancer, start_stub

TEXT = "The first paragraph is here.\n\nThe last one comes later."
WHOLE = Heard(whole=1, seconds=1.0, first_sounds=[0.1])
JOINS = [Joins(3, 10, 20)]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a balancer with one stub worker."""
    run_dir: Path = tmp_path_factory.mktemp("run")
    with start_stub(run_dir, audio_bytes=10_000), start_balancer(run_dir, normalize=False) as url:
        yield url


async def heard(url: str, twin: Twin) -> Heard:
    listeners = Listeners(url, [twin], seed=1)
    async with client(url) as http:
        await listeners.hear(http, twin)
    return listeners.heard


async def undisturbed(url: str, text: str = TEXT) -> Twin:
    async with client(url) as http:
        (twin,) = await hear_undisturbed(http, [Twin(text, 1)])
    return twin


async def test_a_stream_is_compared_with_its_twin(url: str) -> None:
    twin = await undisturbed(url)
    whole = await heard(url, twin)
    assert (whole.whole, whole.failures, len(whole.first_sounds)) == (1, Counter(), 1)
    for pcm, failure in (
        (twin.pcm + b"\0\0", "ended regularly, but too early"),
        (b"\1" + twin.pcm[1:], "other audio than its twin"),
        (twin.pcm[:-2], "other audio than its twin"),
    ):
        found = await heard(url, replace(twin, pcm=pcm))
        assert (found.whole, found.failures) == (0, Counter({failure: 1}))


async def test_a_stream_that_breaks_off_is_a_failure(url: str) -> None:
    twin = await undisturbed(url)
    broken = await heard(url, replace(twin, text=f"{TEXT}\n\nfail"))
    assert broken.failures == Counter({"RemoteProtocolError": 1})
    assert (await heard(url, replace(twin, text="fail\n\nfail"))).failures == Counter({"status 500": 1})


def test_texts_depend_on_the_seed_alone() -> None:
    assert draw_texts(4, 1) == draw_texts(4, 1) != draw_texts(4, 2)
    assert len({twin.text for twin in draw_texts(4, 1)}) == 4


def test_joins_are_pauses_of_exact_zeros() -> None:
    tone = (1000 * np.sin(np.arange(SAMPLE_RATE) / 5) + 2000).astype("<i2")
    pause = np.zeros(SAMPLE_RATE // 3, "<i2")
    joins = joins_of(np.concatenate([tone, pause, tone, pause, tone]).tobytes())
    assert joins.count == 2
    assert joins.step_at == max(abs(int(tone[-1])), abs(int(tone[0])))
    assert joins.step_inside == np.abs(np.diff(tone.astype(int))).max()
    assert joins_of(tone.tobytes()).count == 0


def test_a_gap_is_explained_by_a_worker_that_was_missing_meanwhile() -> None:
    gaps = Heard(gaps=[(10.0, 1.0), (20.0, 1.0), (30.0, 1.0)], gap_ends=[12.0, 22.0, 32.0])
    assert unexplained_gaps(gaps, [(9.0, 10.5), (21.9, 24.0)]) == [(30.0, 1.0)]


@pytest.mark.parametrize(
    ("disturbed", "outages", "joins", "broken"),
    [
        (WHOLE, [(0.0, 1.0)], JOINS, set()),
        (WHOLE, [], JOINS, {"workers killed"}),
        (replace(WHOLE, failures=Counter({"x": 1})), [(0.0, 1.0)], JOINS, {"failures"}),
        (replace(WHOLE, gaps=[(5.0, 1.0)], gap_ends=[6.5]), [(0.0, 1.0)], JOINS, {"gaps while every worker was there"}),
        (WHOLE, [(0.0, 1.0)], [Joins(3, 30, 20)], {"largest step of a sample, at joins and inside"}),
        (WHOLE, [(0.0, 1.0)], [Joins(0, 0, 20)], {"joins of segments"}),
    ],
)
def test_checks(disturbed: Heard, outages: list[tuple[float, float]], joins: list[Joins], broken: set[str]) -> None:
    checks = check_streams(WHOLE, disturbed, outages, joins)
    assert {check.name for check in checks if not check.holds} == broken
