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
"""Weight of the newest utterance in both sums. The first ones have more: that of a mean of the prior and all so far."""

MAX_DEVIATION = 20.0
"""A learnt ratio stays within this factor of its prior, so that one outlier does not ruin every estimate."""


@dataclass
class _Ratio:
    """`numerator / denominator`, two exponentially weighted sums. The initial values give the prior and its weight."""

    prior: float
    numerator: float
    denominator: float
    learnt: int = 0
    """Number of utterances."""

    @property
    def value(self) -> float:
        ratio = self.numerator / self.denominator
        return min(max(ratio, self.prior / MAX_DEVIATION), self.prior * MAX_DEVIATION)

    def learn(self, numerator: float, denominator: float) -> None:
        self.learnt += 1
        weight = max(SMOOTHING, 1 / (1 + self.learnt))
        self.numerator += weight * (numerator - self.numerator)
        self.denominator += weight * (denominator - self.denominator)


class CostModel:
    """Estimates for one engine. Its card gives the priors. Workers are named as in WorkerProcess.name."""

    def __init__(self, card: EngineCard) -> None:
        characters = 100.0
        self._length = _Ratio(card.seconds_per_character, characters * card.seconds_per_character, characters)
        audio = characters * card.seconds_per_character
        self._fleet = _Ratio(card.speed, audio, audio / card.speed)
        self._throughput: dict[int, _Ratio] = {}
        """Audio seconds per second of all workers together, by the number of slots in use."""
        self._workers: dict[str, _Ratio] = {}

    def audio_seconds(self, characters: int) -> float:
        """Expected audio of a text with that many characters, in seconds."""
        return characters * self._length.value

    def speed(self, worker: str) -> float:
        """Audio seconds that the worker makes per second; before its first utterance, the average of the fleet."""
        return self._workers.get(worker, self._fleet).value

    def capacity(self, slots: int) -> float:
        """Audio seconds that all workers together make in a second with that many slots.

        It is the most that was measured with as many in use, or fewer: a slot is the slower the more are in use, but
        together they make more. Until half of them were in use at once, it is not less than the card's.
        """
        measured = {used: ratio.value for used, ratio in self._throughput.items() if used <= slots}
        expected = 0.0 if any(2 * used >= slots for used in measured) else slots * self._fleet.prior
        return max(expected, *measured.values(), 0.0)

    def learn(
        self, worker: str, *, characters: int, audio_seconds: float, compute_seconds: float, used: int = 1
    ) -> None:
        """Learn from a finished utterance. Amounts that are not positive and finite are ignored.

        `used`: slots of all workers that were in use meanwhile, this one included.
        """
        if not all(0 < amount < inf for amount in (characters, audio_seconds, compute_seconds)):
            return
        self._length.learn(audio_seconds, characters)
        if (ratio := self._workers.get(worker)) is None:
            ratio = self._workers[worker] = replace(self._fleet)
        ratio.learn(audio_seconds, compute_seconds)
        self._fleet.learn(audio_seconds, compute_seconds)
        if (throughput := self._throughput.get(used)) is None:
            prior = used * self._fleet.prior
            throughput = self._throughput[used] = _Ratio(prior, used * audio_seconds, compute_seconds)
        throughput.learn(used * audio_seconds, compute_seconds)

    def forget(self, worker: str) -> None:
        """Drop the speed of a worker that is gone."""
        self._workers.pop(worker, None)
