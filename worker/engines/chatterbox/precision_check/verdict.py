"""What a precision's figures mean: equal to upstream, close to it, or not recommended; pure.

A precision is only as good as the worst of its figures, and the reasons name that one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from worker.engines.chatterbox.precision_check.statistics import Figures, Heard, Reported


class Fitness(StrEnum):
    """How a precision may be used."""

    EQUAL = "equal"
    """Upstream's own but for rounding."""
    CLOSE = "close"
    """Other takes of the same speech: a seed gives another one, as good."""
    NOT_RECOMMENDED = "not recommended"


class Verdict(Reported):
    """What is to be thought of a precision, and why."""

    fitness: Fitness
    reasons: list[str]
    """A sentence for each figure that decided."""

    @property
    def fit(self) -> bool:
        """Whether it can be used."""
        return self.fitness is not Fitness.NOT_RECOMMENDED


def _percent(value: float) -> str:
    return f"{value:.2%}"


@dataclass(frozen=True)
class Bound:
    """How good one figure has to be."""

    figure: str
    """Of `Figures`."""
    name: str
    limit: float
    at_least: bool = False
    """Whether the limit is the least; else it is the most."""
    written: Callable[[float], str] = _percent

    def holds(self, figures: Figures) -> bool:
        """Whether the figure keeps to it. One that is not a number does not, one that there is none of does."""
        value = getattr(figures, self.figure)
        if value is None:
            return True
        return bool(value >= self.limit if self.at_least else value <= self.limit)

    def told(self, figures: Figures) -> str:
        """The figure beside its limit."""
        value = getattr(figures, self.figure)
        found = "none" if value is None else self.written(value) if math.isfinite(value) else "not a number"
        return f"{self.name}: {found} ({'at least' if self.at_least else 'at most'} {self.written(self.limit)})"


def _nats(value: float) -> str:
    return f"{value:.2g} nats"


def _decibels(value: float) -> str:
    return f"{value:.2f} dB"


def _units(value: float) -> str:
    return f"{value:.2g}"


EQUAL = (
    Bound("logit_largest", "largest difference of a logit, of their range", 1e-3),
    Bound("agreement", "likeliest next token the same", 0.999, at_least=True),
    Bound("mel_largest", "largest difference of a mel band", 1e-3, written=_units),
    Bound("vocoder_ratio", "vocoder's signal to noise", 60.0, at_least=True, written=_decibels),
)
"""What the order of additions alone makes of float32 is hundreds of times less."""

CLOSE = (
    # Of llama.cpp's quantisations of Llama 3 8B, 8 bits have 0.0014, 6 bits 0.0057, 5 bits 0.011 (its scoreboard).
    Bound("divergence_mean", "divergence of the next token", 0.01, written=_nats),
    Bound("clear_agreement", "the same where upstream's choice is clear", 0.99, at_least=True),
    # Spectra 1 dB apart on average count as the same to the ear in speech coding (Paliwal and Atal, 1993).
    Bound("mel_cepstral", "mel-cepstral distance", 1.0, written=_decibels),
    # The noise has a hundredth of the power of the speech that hides it.
    Bound("vocoder_ratio", "vocoder's signal to noise", 20.0, at_least=True, written=_decibels),
)
"""Two takes of one text by upstream itself are further apart: other seeds draw other tokens."""

UNDERSTOOD = 0.5
"""A word error rate above which the recogniser does not understand upstream itself: it then says nothing."""

WORSE = 0.02
"""By how much the word error rate may be above upstream's."""

CHANCE = 1.64
"""And by how many standard errors of the difference of two takes: one good precision in twenty has more."""


def judge(figures: Figures, stock: Heard | None) -> Verdict:
    """Judge a precision; `stock` is what a recogniser heard in upstream's own speech, if one listened."""
    apart = [bound.told(figures) for bound in CLOSE if not bound.holds(figures)]
    apart += _heard_worse(figures.heard, stock)
    if apart:
        return Verdict(fitness=Fitness.NOT_RECOMMENDED, reasons=apart)
    equal = all(bound.holds(figures) for bound in EQUAL)
    return Verdict(
        fitness=Fitness.EQUAL if equal else Fitness.CLOSE,
        reasons=[bound.told(figures) for bound in (EQUAL if equal else CLOSE)],
    )


def understood(stock: Heard) -> bool:
    """Whether the recogniser understands upstream's own speech, without which nothing it hears says anything."""
    return stock.rate <= UNDERSTOOD


def most_errors(stock: Heard) -> float:
    """The word error rate up to which a precision is not worse than upstream.

    Two takes differ by chance, too, the more the fewer words there are: by the standard error of a difference of two
    shares, for which upstream's is taken a little above what was counted (Laplace's rule), so that none is 0.
    """
    share = (stock.errors + 1) / (stock.words + 2)
    return stock.rate + WORSE + CHANCE * math.sqrt(2 * share * (1 - share) / stock.words)


def _heard_worse(heard: Heard | None, stock: Heard | None) -> Iterator[str]:
    if heard is None or stock is None or not understood(stock):
        return
    limit = most_errors(stock)
    if heard.rate > limit:
        yield (
            f"word error rate: {heard.rate:.1%}, upstream's {stock.rate:.1%} "
            f"(at most {limit:.1%} over {stock.words} words)"
        )
