"""The verdict on a precision's statistics: equal to upstream, close to it, another rendering, or not recommended; pure.

The worst statistic decides, and the verdict's reasons name it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from worker.engines.chatterbox.precision_check.statistics import ReportModel, Statistics
from worker.engines.chatterbox.precision_check.word_errors import WordErrors


class Fitness(StrEnum):
    """How a precision may be used."""

    EQUAL = "equal"
    """Equal to upstream up to rounding."""
    CLOSE = "close"
    """Another take of the same speech, as good as upstream's with another seed."""
    RENDERING = "another rendering"
    """Upstream's speech by another flow, or in other steps: the same tokens and speaker, another spectrogram."""
    NOT_RECOMMENDED = "not recommended"


class Verdict(ReportModel):
    """The fitness of a precision, and the reasons."""

    fitness: Fitness
    reasons: list[str]
    """A sentence for each statistic that decided."""

    @property
    def fit(self) -> bool:
        """Whether the precision can be used."""
        return self.fitness is not Fitness.NOT_RECOMMENDED


def _percent(value: float) -> str:
    return f"{value:.2%}"


@dataclass(frozen=True)
class Bound:
    """The limit of one statistic."""

    statistic: str
    """A field of `Statistics`."""
    name: str
    """Its name in reasons."""
    limit: float
    at_least: bool = False
    """Whether the limit is a minimum; otherwise it is a maximum."""
    formatter: Callable[[float], str] = _percent

    def holds(self, statistics: Statistics) -> bool:
        """Whether the statistic keeps to the limit: NaN does not, None does."""
        value = getattr(statistics, self.statistic)
        if value is None:
            return True
        return bool(value >= self.limit if self.at_least else value <= self.limit)

    def describe(self, statistics: Statistics) -> str:
        """A sentence with the statistic and its limit."""
        value = getattr(statistics, self.statistic)
        found = "none" if value is None else self.formatter(value) if math.isfinite(value) else "not a number"
        return f"{self.name}: {found} ({'at least' if self.at_least else 'at most'} {self.formatter(self.limit)})"


def _nats(value: float) -> str:
    return f"{value:.2g} nats"


def _decibels(value: float) -> str:
    return f"{value:.2f} dB"


def _units(value: float) -> str:
    return f"{value:.2g}"


EQUAL = (
    Bound("logit_largest", "largest difference of a logit, of their range", 1e-3),
    Bound("agreement", "same most likely next token", 0.999, at_least=True),
    Bound("mel_largest", "largest difference of a mel band", 1e-3, formatter=_units),
    Bound("vocoder_ratio", "vocoder's signal-to-noise ratio", 60.0, at_least=True, formatter=_decibels),
)
"""Another order of additions in float32 stays hundreds of times below these limits."""

CLOSE = (
    # Of llama.cpp's quantisations of Llama 3 8B, 8 bits have 0.0014, 6 bits 0.0057, 5 bits 0.011 (its scoreboard).
    Bound("divergence_mean", "divergence of the next token", 0.01, formatter=_nats),
    Bound("clear_agreement", "same most likely next token where upstream's is clear", 0.99, at_least=True),
    # In speech coding, spectra 1 dB apart on average count as the same to the ear (Paliwal and Atal, 1993).
    Bound("mel_cepstral", "mel-cepstral distance", 1.0, formatter=_decibels),
    # The noise has a hundredth of the power of the speech that masks it.
    Bound("vocoder_ratio", "vocoder's signal-to-noise ratio", 20.0, at_least=True, formatter=_decibels),
)
"""Two takes of a text by upstream itself are further apart: other seeds draw other tokens."""

RENDERING = (
    *(bound for bound in CLOSE if bound.statistic in ("divergence_mean", "clear_agreement")),
    # No measured limit: the spectrogram's distance and this one say where to listen.
    Bound("speaker_similarity", "speaker's similarity to upstream's", 0.9, at_least=True, formatter=_units),
)
"""For another flow, whose spectrograms are others."""

MAX_UPSTREAM_RATE = 0.5
"""Word error rate of upstream's own speech above which the recogniser does not understand it. Then no rate counts."""

RATE_MARGIN = 0.02
"""Allowed excess of the word error rate over upstream's."""

RATE_DEVIATIONS = 1.64
"""Allowed further excess, in standard errors of the difference of two takes: 1 good precision in 20 exceeds it."""


def judge(statistics: Statistics, stock: WordErrors | None) -> Verdict:
    """The verdict on a precision; `stock` are the word errors in upstream's own speech, None without a recogniser."""
    limits = CLOSE if statistics.speaker_similarity is None else RENDERING
    failed = [bound.describe(statistics) for bound in limits if not bound.holds(statistics)]
    failed += _word_error_reasons(statistics.word_errors, stock)
    if failed:
        return Verdict(fitness=Fitness.NOT_RECOMMENDED, reasons=failed)
    if limits is RENDERING:
        reasons = [bound.describe(statistics) for bound in RENDERING]
        return Verdict(fitness=Fitness.RENDERING, reasons=reasons)
    equal = all(bound.holds(statistics) for bound in EQUAL)
    return Verdict(
        fitness=Fitness.EQUAL if equal else Fitness.CLOSE,
        reasons=[bound.describe(statistics) for bound in (EQUAL if equal else CLOSE)],
    )


def is_understood(stock: WordErrors) -> bool:
    """Whether the recogniser understands upstream's own speech; otherwise word error rates do not count."""
    return stock.rate <= MAX_UPSTREAM_RATE


def max_error_rate(stock: WordErrors) -> float:
    """The word error rate up to which a precision is not worse than upstream.

    Two takes also differ by chance, the more the fewer words there are: by the standard error of a difference of two
    shares. Upstream's share is taken slightly above the count (Laplace's rule), so that it is never 0.
    """
    share = (stock.errors + 1) / (stock.words + 2)
    return stock.rate + RATE_MARGIN + RATE_DEVIATIONS * math.sqrt(2 * share * (1 - share) / stock.words)


def _word_error_reasons(found: WordErrors | None, stock: WordErrors | None) -> Iterator[str]:
    if found is None or stock is None or not is_understood(stock):
        return
    limit = max_error_rate(stock)
    if found.rate > limit:
        yield (
            f"word error rate: {found.rate:.1%}, upstream's {stock.rate:.1%} "
            f"(at most {limit:.1%} over {stock.words} words)"
        )
