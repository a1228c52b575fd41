"""The times at which the requests of an open loop are due."""

import random
from collections.abc import Iterator


def poisson(rate: float, seed: int) -> Iterator[float]:
    """The arrival times of a Poisson process, in seconds since its start, without end; `rate` per second on average.

    They depend on the seed alone: neither a slow server nor a slow client delays them.
    """
    rng = random.Random(f"arrivals {seed}")
    at = 0.0
    while True:
        at += rng.expovariate(rate)
        yield at
