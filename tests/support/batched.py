"""The batched engine for tests: utterances begun, and led to their end in turn."""

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


def start(engine: str, checkpoint: Path, cache: Path, **options: Any) -> BatchedEngine:
    """An engine that can speak BUILT_IN, on one thread."""
    torch.set_num_threads(1)
    made = BatchedEngine(engine, checkpoint, cache, **{"slots": SLOTS} | options)
    made.prepare(BUILT_IN)
    return made


def begin(
    engine: BatchedEngine,
    text: str = TEXTS[0],
    source: VoiceSource = BUILT_IN,
    seed: int = 1,
    cancellation: Cancellation | None = None,
    *,
    budget: int = BUDGET,
    **own: Any,
) -> Iterator[Samples]:
    """An utterance that takes its turns as it is asked."""
    spoken = utterance(text, voice=source.voice.name, seed=seed, token_budget=budget, parameters=own)
    return engine.synthesize(spoken, source, cancellation or Cancellation())


def all_samples(begun: Iterator[Samples]) -> Samples:
    """All of what is left of it."""
    return np.concatenate(list(begun))


def drop(begun: Iterator[Samples], *, after: int) -> None:
    """Let it take so many turns, and no more."""
    for _ in range(after):
        next(begun)
    begun.close()  # type: ignore[attr-defined]


def together(begun: Mapping[int, Callable[[], Iterator[Samples]]], order: random.Random) -> dict[int, Samples]:
    """What comes of utterances that join as slots get free and take turns in some order."""
    waiting, running, done = list(begun), {}, {}  # type: ignore[var-annotated]
    while waiting or running:
        while waiting and len(running) < SLOTS and (not running or order.random() < 0.3):
            number = waiting.pop(0)
            running[number] = (begun[number](), [])
        for number in order.sample(sorted(running), len(running)):
            pieces, made = running[number]
            try:
                made.append(next(pieces))
            except StopIteration:
                done[number] = np.concatenate(made)
                del running[number]
    return done
