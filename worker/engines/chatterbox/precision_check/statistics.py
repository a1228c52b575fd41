"""A precision in figures: distances of one text or of several summed up, with what a recogniser heard; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from worker.engines.chatterbox.precision_check.distances import FrameDistances, StepDistances, WaveDistance, joined

MOST_DECIBELS = 150.0
"""Told of waves that are the same to the last bit: all that float32 tells apart."""


class Reported(BaseModel):
    """What goes into the report, as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Heard(Reported):
    """What a recogniser made of speech whose words are known."""

    errors: int
    """Words that it heard wrong, missed or added."""
    words: int

    @property
    def rate(self) -> float:
        """Word error rate: 1 where every word is wrong, more where it heard words that nobody said."""
        return self.errors / self.words

    def __add__(self, other: Heard) -> Heard:
        """What it made of both."""
        return Heard(errors=self.errors + other.errors, words=self.words + other.words)


class Figures(Reported):
    """How far one precision is from upstream. Shares are between 0 and 1."""

    steps: int
    """Tokens along which logits were compared."""
    logit_largest: float
    """Largest difference of a logit, as a share of their range."""
    logit_mean: float
    """Mean difference, likewise."""
    divergence_mean: float
    """Kullback-Leibler divergence of the next token's distribution from upstream's, in nats a step."""
    divergence_largest: float
    agreement: float
    """Share of the steps at which the likeliest token is the same."""
    clear_steps: int
    """Steps at which upstream's choice is clear: its likeliest token is twice as likely as the next."""
    clear_agreement: float | None
    """The agreement over those; None where there are none."""
    draw_agreement: float
    """Share of the steps at which the same random numbers draw the same token."""
    frames: int
    """Frames of the spectrograms that were compared."""
    mel_mean: float
    """Mean difference of a band, in natural logarithms of magnitudes."""
    mel_largest: float
    mel_cepstral: float
    """Mel-cepstral distance, mean over the frames, in dB."""
    vocoder_ratio: float
    """Signal to noise of the wave that is made of the same spectrogram, in dB."""
    heard: Heard | None
    """None where no recogniser listened."""


def figures(
    steps: Sequence[StepDistances],
    frames: Sequence[FrameDistances],
    waves: Sequence[WaveDistance],
    heard: Sequence[Heard],
) -> Figures:
    """Sum up texts; `heard` may be empty, the others not."""
    step, frame, wave = joined(steps), joined(frames), joined(waves)
    clear = int(step.clear.sum())
    return Figures(
        steps=len(step.largest),
        logit_largest=float(step.largest.max()),
        logit_mean=float(step.mean.mean()),
        divergence_mean=float(step.divergence.mean()),
        divergence_largest=float(step.divergence.max()),
        agreement=float(step.same_best.double().mean()),
        clear_steps=clear,
        clear_agreement=float(step.same_best[step.clear].double().mean()) if clear else None,
        draw_agreement=float(step.same_draw.double().mean()),
        frames=len(frame.mean),
        mel_mean=float(frame.mean.mean()),
        mel_largest=float(frame.largest.max()),
        mel_cepstral=float(frame.cepstral.mean()),
        vocoder_ratio=decibels(float(wave.signal.sum()), float(wave.noise.sum())),
        heard=total(heard),
    )


def total(heard: Sequence[Heard]) -> Heard | None:
    """What a recogniser made of several texts; None of none."""
    return sum(heard[1:], start=heard[0]) if heard else None


def decibels(signal: float, noise: float) -> float:
    """The ratio of two energies in dB, at most MOST_DECIBELS; not a number where one of them is none."""
    if noise == 0:
        return MOST_DECIBELS
    if signal == 0:
        return -math.inf
    return min(MOST_DECIBELS, 10 * math.log10(signal / noise)) if math.isfinite(noise) else math.nan
