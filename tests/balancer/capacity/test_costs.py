import pytest

from balancer.capacity.costs import Yield

MADE = Yield(rate=2.0, audio_seconds=10.0, characters=150.0)


def test_a_host_in_figures() -> None:
    assert MADE.requests_per_minute == 120
    assert MADE.audio_seconds_per_minute == 1200


def test_what_it_costs() -> None:
    # 2 requests a second of 150 characters are 1.08 million characters an hour, and 20 hours of audio.
    assert MADE.dollars_per_million_characters(0.54) == pytest.approx(0.5)
    assert MADE.dollars_per_audio_hour(0.54) == pytest.approx(0.027)


@pytest.mark.parametrize(("load", "hosts"), [(1, 1), (96, 1), (97, 2), (960, 10)])
def test_hosts_for_a_load_are_not_loaded_to_their_knee(load: float, hosts: int) -> None:
    assert MADE.hosts_for(load) == hosts


def test_half_from_the_cache_is_nearly_twice_as_many() -> None:
    assert MADE.with_cache(0.5, 1e9) == pytest.approx(4.0)
    assert MADE.with_cache(0.5, 2.0) == pytest.approx(2.0)
