"""How far logits, spectrograms and waves of one text are from upstream's; pure.

Each distance is told step by step or frame by frame, so that those of several texts are put end to end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor

CLEAR = math.log(2)
"""Upstream's choice is clear where its best token is twice as likely as the next: elsewhere either will do."""

CEPSTRA = 13
"""Mel-cepstral coefficients compared, from the second on: the first is loudness."""

_DECIBELS = 20 / math.log(10)
"""Of one unit of a natural logarithm of magnitudes, which upstream's spectrograms are."""


@dataclass(frozen=True)
class StepDistances:
    """Of the next token's logits, each (steps,)."""

    largest: Tensor
    """Largest difference of a logit, as a share of the range of upstream's."""
    mean: Tensor
    """The same on average over the vocabulary."""
    divergence: Tensor
    """Kullback-Leibler divergence from upstream's distribution, in nats."""
    same_best: Tensor
    """Whether the likeliest token is the same."""
    clear: Tensor
    """Whether upstream's own choice of that is clear."""
    same_draw: Tensor
    """Whether the same random numbers draw the same token."""


@dataclass(frozen=True)
class FrameDistances:
    """Of spectrograms, each (frames,)."""

    mean: Tensor
    """Mean difference of a band, in upstream's units: natural logarithms of magnitudes."""
    largest: Tensor
    """Largest difference of a band."""
    cepstral: Tensor
    """Mel-cepstral distance in dB."""


@dataclass(frozen=True)
class WaveDistance:
    """Of waves: the energy of upstream's, and of the difference, each (1,)."""

    signal: Tensor
    noise: Tensor


def of_logits(expected: Tensor, found: Tensor, *, temperature: float, generator: torch.Generator) -> StepDistances:
    """Compare logits, both float32 (steps, vocabulary).

    Draws are from all tokens at `temperature`, as `torch.multinomial` draws: the token is taken whose probability is
    largest after each was divided by a random number of its own, exponentially distributed.
    """
    expected, found = expected.double(), found.double()
    difference = (expected - found).abs() / (expected.amax(1) - expected.amin(1)).unsqueeze(1)
    wanted, made = expected.log_softmax(1), found.log_softmax(1)
    best = wanted.topk(2, dim=1)
    noise = torch.empty_like(expected).exponential_(generator=generator).log()
    return StepDistances(
        largest=difference.amax(1),
        mean=difference.mean(1),
        divergence=(wanted.exp() * (wanted - made)).sum(1).clamp(min=0),
        same_best=best.indices[:, 0] == found.argmax(1),
        clear=best.values[:, 0] - best.values[:, 1] >= CLEAR,
        same_draw=(expected / temperature - noise).argmax(1) == (found / temperature - noise).argmax(1),
    )


def of_mels(expected: Tensor, found: Tensor) -> FrameDistances:
    """Compare spectrograms, both float32 (frames, bands), frame by frame.

    The mel-cepstral distance is Kubichek's (1993), 10 / ln 10 * sqrt(2 * sum of squared differences) over coefficients
    1 to 13, here of the spectrograms' own bands: what is left of the root mean square difference of the log spectra,
    in dB, when loudness and all fine structure are taken out.
    """
    difference = (expected - found).double()
    bands = difference.shape[1]
    return FrameDistances(
        mean=difference.abs().mean(1),
        largest=difference.abs().amax(1),
        cepstral=_DECIBELS * ((difference @ _cosines(bands)).square().sum(1) / bands).sqrt(),
    )


def of_waves(expected: Tensor, found: Tensor) -> WaveDistance:
    """Compare waves, both float32 (samples,)."""
    expected, found = expected.double(), found.double()
    return WaveDistance(expected.square().sum(0, keepdim=True), (expected - found).square().sum(0, keepdim=True))


Distances = TypeVar("Distances", StepDistances, FrameDistances, WaveDistance)


def joined(parts: Sequence[Distances]) -> Distances:
    """Those of several texts, end to end."""
    kind = type(parts[0])
    return kind(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(kind)))


def _cosines(bands: int) -> Tensor:
    """The orthonormal cosines of coefficients 1 to CEPSTRA: (bands, CEPSTRA)."""
    places = (torch.arange(bands, dtype=torch.float64) + 0.5) * math.pi / bands
    return torch.cos(places[:, None] * torch.arange(1, CEPSTRA + 1)) * math.sqrt(2 / bands)
