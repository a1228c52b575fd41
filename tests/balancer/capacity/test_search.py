import pytest

from balancer.capacity.search import Search, TriedRate


def search(limit: float, **options: float) -> list[float]:
    """The rates that are tried on a server that keeps its target up to a limit."""
    search, tried = Search(1.0, **options), list[TriedRate]()  # type: ignore[arg-type]
    while (rate := search.next_rate(tried)) is not None:
        tried.append(TriedRate(rate, rate <= limit))
    knee = search.knee(tried)
    return [each.rate for each in tried] + ([] if knee is None else [knee])


@pytest.mark.parametrize("limit", [1.0, 7.3, 40.0, 0.21])
def test_the_knee_is_found_within_the_precision(limit: float) -> None:
    knee = search(limit)[-1]
    assert limit / 1.05 <= knee <= limit


def test_the_rate_is_stepped_up_until_the_target_breaks() -> None:
    assert search(3.0)[:4] == [1.0, 1.5, 2.25, 3.375]


def test_a_server_that_keeps_no_rate_ends_the_search() -> None:
    assert search(0.0) == [2.0**-power for power in range(7)]


def test_a_rate_that_held_above_one_that_broke_does_not_count() -> None:
    assert Search(1.0).knee([TriedRate(1.0, True), TriedRate(2.0, False), TriedRate(3.0, True)]) == 1.0
