"""Statistics of one precision: the distances and word errors of one text, or of several together; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from worker.engines.chatterbox.precision_check.distances import (
    FrameDistances,
    StepDistances,
    WaveDistance,
    concatenate,
)
from worker.engines.chatterbox.precision_check.word_errors import WordErrors, total_word_errors

MAX_DECIBELS = 150.0
"""Signal-to-noise ratio of identical waves: the most that float32 can express."""


class ReportModel(BaseModel):
    """Base of everything in the report, which is JSON with field names in camel case."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Statistics(ReportModel):
    """How far one precision is from upstream. Shares are in [0, 1]."""

    steps: int
    """Tokens whose logits were compared."""
    logit_largest: float
    """Largest difference of a logit, as a share of their range."""
    logit_mean: float
    """Mean difference, as the same share."""
    divergence_mean: float
    """Kullback-Leibler divergence of the next token's distribution from upstream's, in nats per step."""
    divergence_largest: float
    agreement: float
    """Share of the steps with the same most likely token."""
    clear_steps: int
    """Steps at which upstream's choice is clear: its most likely token is twice as likely as the next."""
    clear_agreement: float | None
    """The agreement over the clear steps; None where there are none."""
    draw_agreement: float
    """Share of the steps at which the same random numbers draw the same token."""
    frames: int
    """Frames of the compared spectrograms."""
    mel_mean: float
    """Mean difference of a band, in natural logarithms of magnitudes."""
    mel_largest: float
    mel_cepstral: float
    """Mel-cepstral distance, mean over the frames, in dB."""
    vocoder_ratio: float
    """Signal-to-noise ratio of the wave that is made from the same spectrogram, in dB."""
    speaker_similarity: float | None
    """Cosine similarity of the speaker's embedding to that of upstream's speech, by the model's voice encoder, mean of
    the texts; None where the flow is upstream's."""
    word_errors: WordErrors | None
    """None where no recogniser was used."""


def summarise(
    steps: Sequence[StepDistances],
    frames: Sequence[FrameDistances],
    waves: Sequence[WaveDistance],
    similarities: Sequence[float],
    word_errors: Sequence[WordErrors],
) -> Statistics:
    """The statistics of several texts; `similarities` and `word_errors` may be empty, the other sequences must not."""
    step, frame, wave = concatenate(steps), concatenate(frames), concatenate(waves)
    clear = int(step.clear.sum())
    return Statistics(
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
        speaker_similarity=sum(similarities) / len(similarities) if similarities else None,
        word_errors=total_word_errors(word_errors),
    )


def decibels(signal: float, noise: float) -> float:
    """The ratio of two energies in dB, at most MAX_DECIBELS.

    -inf where there is no signal, NaN where the noise is infinite or NaN.
    """
    if noise == 0:
        return MAX_DECIBELS
    if signal == 0:
        return -math.inf
    return min(MAX_DECIBELS, 10 * math.log10(signal / noise)) if math.isfinite(noise) else math.nan
