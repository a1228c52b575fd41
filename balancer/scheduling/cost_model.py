"""Predicts the cost of an utterance from the costs of earlier ones. Pure: the dispatcher reports the costs.

It learns two ratios: audio seconds per character for the engine, and audio seconds per second of work for each worker.
Each is a ratio of exponentially weighted sums, not an average of ratios, so that a long text has the weight of its
length.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

from worker.cards import EngineCard

SMOOTHING = 0.05
"""Weight of the newest utterance in both sums."""

MAX_DEVIATION = 20.0
"""A learnt ratio stays within this factor of its prior, so that one outlier does not ruin every estimate."""


@dataclass
class _Ratio:
    """`numerator / denominator`, two exponentially weighted sums. The initial values give the prior and its weight."""

    prior: float
    numerator: float
    denominator: float

    @property
    def value(self) -> float:
        ratio = self.numerator / self.denominator
        return min(max(ratio, self.prior / MAX_DEVIATION), self.prior * MAX_DEVIATION)

    def learn(self, numerator: float, denominator: float) -> None:
        self.numerator += SMOOTHING * (numerator - self.numerator)
        self.denominator += SMOOTHING * (denominator - self.denominator)


class CostModel:
    """Estimates for one engine. Its card gives the priors. Workers are named as in WorkerProcess.name."""

    def __init__(self, card: EngineCard) -> None:
        characters = 100.0
        self._length = _Ratio(card.seconds_per_character, characters * card.seconds_per_character, characters)
        audio = characters * card.seconds_per_character
        self._fleet = _Ratio(card.speed, audio, audio / card.speed)
        self._workers: dict[str, _Ratio] = {}

    def audio_seconds(self, characters: int) -> float:
        """Expected audio of a text with that many characters, in seconds."""
        return characters * self._length.value

    def speed(self, worker: str) -> float:
        """Audio seconds that the worker makes per second; before its first utterance, the average of the fleet."""
        return self._workers.get(worker, self._fleet).value

    def learn(self, worker: str, *, characters: int, audio_seconds: float, compute_seconds: float) -> None:
        """Learn from a finished utterance. Amounts that are not positive and finite are ignored."""
        if not all(0 < amount < inf for amount in (characters, audio_seconds, compute_seconds)):
            return
        self._length.learn(audio_seconds, characters)
        if (ratio := self._workers.get(worker)) is None:
            ratio = self._workers[worker] = replace(self._fleet)
        ratio.learn(audio_seconds, compute_seconds)
        self._fleet.learn(audio_seconds, compute_seconds)

    def forget(self, worker: str) -> None:
        """Drop the speed of a worker that is gone."""
        self._workers.pop(worker, None)
