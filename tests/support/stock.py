"""The stock engine for tests.

Test modules import this before any Chatterbox module: it suppresses the warnings that upstream gives on import, and
imports it as a worker does.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.support.real_worker import utterance
from tests.support.recordings import record, speech
from voices.registry import Voice
from worker.engines.base import Cancellation, Samples, VoiceSource
from worker.engines.chatterbox.upstream.lean_imports import lean_imports

with warnings.catch_warnings(), lean_imports():
    warnings.simplefilter("ignore")
    from worker.engines.chatterbox.stock import StockEngine

BUILT_IN = VoiceSource(Voice(name="default", engine="*"), None)
TEXT = "Hi there."
BUDGET = 8
TOKEN_SAMPLES = 960
"""Samples of one speech token, of which there are 25 per second."""


def start(name: str, checkpoint: Path, cache: Path, **options: Any) -> StockEngine:
    """An engine on one thread, with BUILT_IN prepared."""
    torch.set_num_threads(1)
    engine = StockEngine(name, checkpoint, cache, **options)
    engine.prepare(BUILT_IN)
    return engine


def cloned(folder: Path, name: str = "ada", *, turbo: bool = True, seconds: float | None = None) -> VoiceSource:
    """A voice with a synthetic reference clip: the shorter, the less work for S3Gen, whose prompt it is.

    By default it is as short as Turbo, or else the other engines, can have it here: Turbo refuses clips of 5 s, and a
    prompt that is shortened to 1 s must have been longer. The others' S3Gen integrates in ten guided steps, so that
    each second costs more.
    """
    if seconds is None:
        seconds = 5.2 if turbo else 1.2
    (folder / name).mkdir()
    clip = record(folder / name / "clip.wav", speech(seconds))
    return VoiceSource(Voice(name=name, reference=clip.name, synthetic=True), clip)


def synthesize(
    engine: StockEngine,
    text: str = TEXT,
    source: VoiceSource = BUILT_IN,
    *,
    seed: int = 7,
    budget: int | None = BUDGET,
    cancellation: Cancellation | None = None,
    parameters: Mapping[str, float | str] | None = None,
    **more: Any,
) -> Samples:
    """All samples of one utterance, with the given parameters and those given by keyword."""
    everything = {**(parameters or {}), **more}
    request = utterance(text, voice=source.voice.name, seed=seed, token_budget=budget, parameters=everything)
    return np.concatenate(list(engine.synthesize(request, source, cancellation or Cancellation())))


class CountedCancellation(Cancellation):
    """Counts its checks, and requests a stop at check number `at`."""

    def __init__(self, at: int | None = None) -> None:
        super().__init__()
        self._at = at
        self.checks = 0

    def check(self) -> None:
        self.checks += 1
        if self.checks == self._at:
            self.request()
        super().check()
