"""The load of a run: its texts and, in an open loop, when each is due. Both balancers get the same loads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from balancer.load.arrivals import poisson
from balancer.load.texts import Text, TextMix, generate_texts

MAX_REQUESTS = 10_000
_MAX_RUNS = 10_000
"""More than there are runs with one seed."""


@dataclass(frozen=True)
class OfferedLoad:
    """The texts of one run; no text occurs in two runs."""

    texts: tuple[Text, ...]
    seed: int

    @classmethod
    def draw(cls, requests: int, *, seed: int, number: int) -> OfferedLoad:
        """The load of run `number`, with at most MAX_REQUESTS; it depends on `seed` and `number` alone."""
        own_seed = seed * _MAX_RUNS + number
        texts = generate_texts(TextMix(own_seed), seed=own_seed, repeat=0, first_number=number * MAX_REQUESTS)
        return cls(tuple(islice(texts, requests)), own_seed)

    @property
    def characters(self) -> int:
        """Characters of all texts; the time to synthesize a text is roughly proportional to its length."""
        return sum(len(text.content) for text in self.texts)

    def rate(self, characters_per_second: float) -> float:
        """The rate in requests per second that comes to that many characters per second."""
        return characters_per_second * len(self.texts) / self.characters

    def arrivals(self, rate: float) -> Iterator[float]:
        """The times at which the texts are due, in seconds since the start."""
        return poisson(rate, self.seed)
