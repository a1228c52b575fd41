"""The Chatterbox engine for tests. Test modules import this before any of its modules, which warn when they load."""

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

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from worker.engines.chatterbox.stock import StockEngine

BUILT_IN = VoiceSource(Voice(name="default", engine="*"), None)
TEXT = "Hi there."
BUDGET = 8
TOKEN_SAMPLES = 960
"""Samples of one speech token: 25 a second."""


def start(engine: str, checkpoint: Path, cache: Path) -> StockEngine:
    """An engine that can speak BUILT_IN, on one thread."""
    torch.set_num_threads(1)
    made = StockEngine(engine, checkpoint, cache)
    made.prepare(BUILT_IN)
    return made


def cloned(folder: Path, name: str = "ada", *, seconds: float = 6.0) -> VoiceSource:
    """A voice with a made-up clip."""
    (folder / name).mkdir()
    clip = record(folder / name / "clip.wav", speech(seconds))
    return VoiceSource(Voice(name=name, reference=clip.name, synthetic=True), clip)


def say(
    engine: StockEngine,
    text: str = TEXT,
    source: VoiceSource = BUILT_IN,
    *,
    seed: int = 7,
    budget: int | None = BUDGET,
    cancellation: Cancellation | None = None,
    asked: Mapping[str, float | str] | None = None,
    **parameters: Any,
) -> Samples:
    """Everything the engine makes of one utterance; its parameters are those `asked` and those named here."""
    everything = {**(asked or {}), **parameters}
    spoken = utterance(text, voice=source.voice.name, seed=seed, token_budget=budget, parameters=everything)
    return np.concatenate(list(engine.synthesize(spoken, source, cancellation or Cancellation())))


class CountedCancellation(Cancellation):
    """Counts how often it is looked at, and asks to stop at one of these looks."""

    def __init__(self, at: int | None = None) -> None:
        super().__init__()
        self._at = at
        self.looks = 0

    def check(self) -> None:
        self.looks += 1
        if self.looks == self._at:
            self.request()
        super().check()
