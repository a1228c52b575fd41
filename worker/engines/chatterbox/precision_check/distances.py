"""Distances of one text's logits, spectrograms and waves from upstream's; pure.

Each distance is kept per step or per frame, so that those of several texts can be concatenated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor

CLEAR_MARGIN = math.log(2)
"""Difference of log probabilities in nats: upstream's choice is clear where its best token is twice as likely as the
next. Elsewhere either token is as good."""

CEPSTRA = 13
"""Number of mel-cepstral coefficients compared, from the second on: the first is loudness."""

_DECIBELS = 20 / math.log(10)
"""Decibels per unit of upstream's spectrograms, which are natural logarithms of magnitudes."""


@dataclass(frozen=True)
class StepDistances:
    """Distances of the next token's logits, each (steps,)."""

    largest: Tensor
    """Largest difference of a logit, as a share of the range of upstream's logits."""
    mean: Tensor
    """Mean difference over the vocabulary, as the same share."""
    divergence: Tensor
    """Kullback-Leibler divergence from upstream's distribution, in nats."""
    same_best: Tensor
    """Whether the most likely token is the same."""
    clear: Tensor
    """Whether upstream's most likely token is a clear choice."""
    same_draw: Tensor
    """Whether the same random numbers draw the same token."""


@dataclass(frozen=True)
class FrameDistances:
    """Distances of spectrograms, each (frames,)."""

    mean: Tensor
    """Mean difference of a band, in upstream's units: natural logarithms of magnitudes."""
    largest: Tensor
    """Largest difference of a band."""
    cepstral: Tensor
    """Mel-cepstral distance in dB."""


@dataclass(frozen=True)
class WaveDistance:
    """Energy of upstream's wave and of the difference from it, each (1,)."""

    signal: Tensor
    noise: Tensor


def logit_distances(
    expected: Tensor, found: Tensor, *, temperature: float, generator: torch.Generator
) -> StepDistances:
    """Compare logits, both float32 (steps, vocabulary).

    Draws are from all tokens at `temperature`, as `torch.multinomial` draws: it divides each probability by an
    exponentially distributed random number and takes the token with the largest quotient.
    """
    expected, found = expected.double(), found.double()
    difference = (expected - found).abs() / (expected.amax(1) - expected.amin(1)).unsqueeze(1)
    expected_log, found_log = expected.log_softmax(1), found.log_softmax(1)
    best = expected_log.topk(2, dim=1)
    noise = torch.empty_like(expected).exponential_(generator=generator).log()
    return StepDistances(
        largest=difference.amax(1),
        mean=difference.mean(1),
        divergence=(expected_log.exp() * (expected_log - found_log)).sum(1).clamp(min=0),
        same_best=best.indices[:, 0] == found.argmax(1),
        clear=best.values[:, 0] - best.values[:, 1] >= CLEAR_MARGIN,
        same_draw=(expected / temperature - noise).argmax(1) == (found / temperature - noise).argmax(1),
    )


def mel_distances(expected: Tensor, found: Tensor) -> FrameDistances:
    """Compare spectrograms, both float32 (frames, bands), frame by frame.

    The mel-cepstral distance is Kubichek's (1993), 10 / ln 10 * sqrt(2 * sum of squared differences) over coefficients
    1 to 13, here of the spectrograms' own bands. It is the root mean square difference of the log spectra in dB,
    without loudness and fine structure.
    """
    difference = (expected - found).double()
    bands = difference.shape[1]
    return FrameDistances(
        mean=difference.abs().mean(1),
        largest=difference.abs().amax(1),
        cepstral=_DECIBELS * ((difference @ _cosines(bands)).square().sum(1) / bands).sqrt(),
    )


def wave_distance(expected: Tensor, found: Tensor) -> WaveDistance:
    """Compare waves, both float32 (samples,)."""
    expected, found = expected.double(), found.double()
    return WaveDistance(expected.square().sum(0, keepdim=True), (expected - found).square().sum(0, keepdim=True))


Distances = TypeVar("Distances", StepDistances, FrameDistances, WaveDistance)


def concatenate(parts: Sequence[Distances]) -> Distances:
    """The distances of several texts, one after the other."""
    kind = type(parts[0])
    return kind(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(kind)))


def _cosines(bands: int) -> Tensor:
    """Orthonormal cosines of coefficients 1 to CEPSTRA: (bands, CEPSTRA)."""
    places = (torch.arange(bands, dtype=torch.float64) + 0.5) * math.pi / bands
    return torch.cos(places[:, None] * torch.arange(1, CEPSTRA + 1)) * math.sqrt(2 / bands)
