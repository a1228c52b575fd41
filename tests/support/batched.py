"""The batched engine for tests, and helpers that advance its utterances in turn."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.support.real_worker import utterance
from tests.support.stock import BUILT_IN
from worker.engines.base import Cancellation, Samples, VoiceSource
from worker.engines.chatterbox.batched import BatchedEngine
from worker.options import EngineOptions

SLOTS = 4
BUDGET = 8
TEXTS = (
    "Hello there.",
    "A longer text that goes on for a while, with a few more words in it.",
    "Third one!",
    "And [laugh] a fourth, which is of middling length.",
    "Five.",
    "The sixth, with numbers such as 42 and 1984, is spoken too.",
)


def start(name: str, checkpoint: Path, cache: Path, **options: Any) -> BatchedEngine:
    """An engine on one thread, with BUILT_IN prepared."""
    torch.set_num_threads(1)
    engine = BatchedEngine(EngineOptions(name, cache, **{"slots": SLOTS} | options), checkpoint)
    engine.prepare(BUILT_IN)
    return engine


def begin(
    engine: BatchedEngine,
    text: str = TEXTS[0],
    source: VoiceSource = BUILT_IN,
    seed: int = 1,
    cancellation: Cancellation | None = None,
    *,
    budget: int = BUDGET,
    **parameters: Any,
) -> Iterator[Samples]:
    """An utterance's generator, which the test advances."""
    request = utterance(text, voice=source.voice.name, seed=seed, token_budget=budget, parameters=parameters)
    return engine.synthesize(request, source, cancellation or Cancellation())


def all_samples(begun: Iterator[Samples]) -> Samples:
    """The remaining samples of an utterance."""
    return np.concatenate(list(begun))


def drop(begun: Iterator[Samples], *, after: int) -> None:
    """Advance an utterance so many times, then close it."""
    for _ in range(after):
        next(begun)
    begun.close()  # type: ignore[attr-defined]


def together(begun: Mapping[int, Callable[[], Iterator[Samples]]], order: random.Random) -> dict[int, Samples]:
    """The samples of utterances that start as slots become free and are advanced in random order."""
    waiting, running, done = list(begun), {}, {}  # type: ignore[var-annotated]
    while waiting or running:
        while waiting and len(running) < SLOTS and (not running or order.random() < 0.3):
            number = waiting.pop(0)
            running[number] = (begun[number](), [])
        for number in order.sample(sorted(running), len(running)):
            chunks, samples = running[number]
            try:
                samples.append(next(chunks))
            except StopIteration:
                done[number] = np.concatenate(samples)
                del running[number]
    return done
