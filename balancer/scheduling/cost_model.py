"""What an utterance will cost, learnt from what utterances have cost: pure, fed and asked by the dispatcher.

Two ratios of sums that forget exponentially: audio seconds a character for the engine, and audio seconds a second of
work for each worker. Sums, not an average of ratios, so that a long text counts for as much as it says.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from worker.cards import EngineCard

SMOOTHING = 0.05
"""Weight of the newest utterance in both sums."""

WIDEST = 20.0
"""A learnt ratio stays within this factor of its prior: one freak utterance must not make every estimate absurd."""


@dataclass
class _Ratio:
    """`over` per `under`, each a sum that forgets; it starts as the prior, which `under` says the weight of."""

    prior: float
    over: float
    under: float

    @property
    def value(self) -> float:
        return min(max(self.over / self.under, self.prior / WIDEST), self.prior * WIDEST)

    def learn(self, over: float, under: float) -> None:
        self.over += SMOOTHING * (over - self.over)
        self.under += SMOOTHING * (under - self.under)


class CostModel:
    """Estimates for one engine, whose card gives the priors. Workers are known by the names of their incarnations."""

    def __init__(self, card: EngineCard) -> None:
        characters = 100.0
        self._length = _Ratio(card.seconds_per_character, characters * card.seconds_per_character, characters)
        audio = characters * card.seconds_per_character
        self._fleet = _Ratio(card.speed, audio, audio / card.speed)
        self._workers: dict[str, _Ratio] = {}

    def audio_seconds(self, characters: int) -> float:
        """Expected audio of a text of that length, in seconds."""
        return characters * self._length.value

    def speed(self, worker: str) -> float:
        """Audio seconds that the worker makes a second; before its first utterance, what the others make."""
        return self._workers.get(worker, self._fleet).value

    def learn(self, worker: str, *, characters: int, audio_seconds: float, compute_seconds: float) -> None:
        """An utterance of that length became so much audio in so much time."""
        if not all(0 < amount < inf for amount in (characters, audio_seconds, compute_seconds)):
            return  # says nothing of the next
        self._length.learn(audio_seconds, characters)
        known = self._workers.setdefault(worker, _Ratio(self._fleet.prior, self._fleet.over, self._fleet.under))
        known.learn(audio_seconds, compute_seconds)
        self._fleet.learn(audio_seconds, compute_seconds)

    def forget(self, worker: str) -> None:
        """The worker is gone."""
        self._workers.pop(worker, None)
