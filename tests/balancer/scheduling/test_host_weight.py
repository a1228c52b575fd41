from balancer.scheduling.host_weight import HostWeight


def test_an_idle_host_has_the_whole_weight() -> None:
    assert HostWeight().observe(free=4, slots=4, all_slots=4) == 100


def test_a_host_that_stays_busy_loses_half_of_it_by_and_by() -> None:
    weight = HostWeight()
    weights = [weight.observe(free=0, slots=4, all_slots=4) for _ in range(100)]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] > 90
    assert weights[-1] in (50, 51)


def test_missing_workers_count_at_once() -> None:
    assert HostWeight().observe(free=1, slots=1, all_slots=4) == 25


def test_a_host_without_a_worker_keeps_the_least_weight() -> None:
    assert HostWeight().observe(free=0, slots=0, all_slots=4) == 1
