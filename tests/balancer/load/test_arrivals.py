import itertools

import pytest

from balancer.load import arrivals


def test_poisson_arrivals_come_at_their_rate() -> None:
    times = list(itertools.islice(arrivals.poisson(20, seed=1), 20_000))
    gaps = [after - before for before, after in itertools.pairwise([0, *times])]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert min(gaps) > 0
    assert mean == pytest.approx(1 / 20, rel=0.03)
    assert variance == pytest.approx(1 / 20**2, rel=0.1)  # exponential gaps, not just gaps of that mean


def test_poisson_arrivals_depend_on_the_seed_alone() -> None:
    first, again, other = (list(itertools.islice(arrivals.poisson(5, seed), 50)) for seed in (3, 3, 4))
    assert first == again != other
