from __future__ import annotations

import random

import pytest

from balancer.time_histogram import BUCKETS, SHORTEST_SECONDS, TimeHistogram, percentile


def histogram(*durations: float) -> TimeHistogram:
    made = TimeHistogram()
    for seconds in durations:
        made.observe(seconds)
    return made


def test_nothing_was_measured() -> None:
    assert percentile(TimeHistogram().counts, 0.5) is None


@pytest.mark.parametrize("seconds", [0.00011, 0.001, 0.02, 0.5, 1.0, 3.7, 60.0, 1600.0])
def test_a_duration_is_known_to_a_fifth(seconds: float) -> None:
    for share in (0.01, 0.5, 0.99):
        found = percentile(histogram(seconds).counts, share)
        assert found is not None
        assert seconds / 1.2 <= found <= seconds * 1.2


@pytest.mark.parametrize(("seconds", "bucket"), [(-1.0, 0), (0.0, 0), (SHORTEST_SECONDS, 0), (1e9, BUCKETS - 1)])
def test_the_first_and_the_last_bucket_have_what_is_beyond_them(seconds: float, bucket: int) -> None:
    assert histogram(seconds).counts[bucket] == 1


def test_percentiles_are_close_to_those_of_the_durations() -> None:
    random.seed(1)
    durations = [random.lognormvariate(-1, 1) for _ in range(5000)]
    counts = histogram(*durations).counts
    for share in (0.5, 0.95, 0.99):
        exact = sorted(durations)[int(share * len(durations))]
        assert percentile(counts, share) == pytest.approx(exact, rel=0.1)


def test_counts_of_two_histograms_can_be_added_and_subtracted() -> None:
    first, second = histogram(0.1, 0.2, 0.3), histogram(1.0, 2.0)
    both = [a + b for a, b in zip(first.counts, second.counts, strict=True)]
    assert both == histogram(0.1, 0.2, 0.3, 1.0, 2.0).counts
    assert [a - b for a, b in zip(both, second.counts, strict=True)] == first.counts
