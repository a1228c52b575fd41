"""What is sent in a run: texts and, in an open loop, when each is due. Both sides get the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from scripts.load.arrivals import poisson
from scripts.load.texts import Text, TextMix, generate_texts

MOST_REQUESTS = 10_000
_RUNS = 10_000
"""More than there are runs for one seed."""


@dataclass(frozen=True)
class Offer:
    """The texts of one run, all different from those of any other."""

    texts: tuple[Text, ...]
    seed: int

    @classmethod
    def draw(cls, requests: int, *, seed: int, number: int) -> Offer:
        """The offer of run `number`, of at most MOST_REQUESTS, settled by `seed`."""
        own = seed * _RUNS + number
        mixed = generate_texts(TextMix(own), seed=own, repeat=0, first_number=number * MOST_REQUESTS)
        return cls(tuple(islice(mixed, requests)), own)

    @property
    def characters(self) -> int:
        """Of all texts together: the time that a text takes is about as its length."""
        return sum(len(text.content) for text in self.texts)

    def rate(self, characters_per_second: float) -> float:
        """Requests a second at which these texts come to so many characters a second."""
        return characters_per_second * len(self.texts) / self.characters

    def arrivals(self, rate: float) -> Iterator[float]:
        """When each is due, in seconds since the start."""
        return poisson(rate, self.seed)
