"""When the requests of an open loop are due."""

import random
from collections.abc import Iterator


def poisson(rate: float, seed: int) -> Iterator[float]:
    """Endless ascending times in seconds since the start, `rate` of them a second on average.

    The times are fixed before anything is sent: neither the server nor the client can push them back.
    """
    rng = random.Random(f"arrivals {seed}")
    at = 0.0
    while True:
        at += rng.expovariate(rate)
        yield at
