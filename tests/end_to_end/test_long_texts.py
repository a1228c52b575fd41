"""A long text is spoken in segments on all workers at once, and sounds the same on any number of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from scripts.support.recogniser import word_error_rate
from tests.end_to_end.conftest import Chorus, start_chorus, synthesize
from tests.support.harness import wait_until

WORDS = ("harbour", "village", "station", "museum", "bakery", "orchard", "bridge", "valley", "castle", "island")
TEXT = " ".join(f"The old {word} was painted green last summer." for word in WORDS) + "\n\nThat was all."
SEED = 11


@pytest.fixture(scope="module")
def spoken(chorus: Chorus) -> bytes:
    """TEXT, spoken by two workers."""
    return synthesize(chorus, TEXT, seed=SEED)


def test_every_word_is_heard(spoken: bytes) -> None:
    assert word_error_rate(TEXT, spoken) < 0.2


def test_one_worker_gives_the_same_bytes(spoken: bytes) -> None:
    # As many threads as each of the two: the embedded engine's sums depend on them.
    with start_chorus("--workers", "1", "--threads", "1") as one:
        assert synthesize(one, TEXT, seed=SEED) == spoken


def test_a_worker_that_dies_costs_its_segment_only_time(chorus: Chorus, spoken: bytes) -> None:
    chorus.await_ready(2)
    with ThreadPoolExecutor(1) as client:
        answer = client.submit(synthesize, chorus, TEXT, seed=SEED)
        wait_until(lambda: any(worker["in_flight"] for worker in chorus.workers()))
        next(child for child in chorus.children() if "worker" in child.cmdline()).kill()
        assert answer.result() == spoken
