"""Runs upstream over an operator's texts, then each precision along the same way, and judges what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from worker.cards import CARDS
from worker.contract import Utterance
from worker.engines.base import Cancellation, Samples, UnspeakableError, VoiceSource
from worker.engines.chatterbox.precision_check import recogniser
from worker.engines.chatterbox.precision_check.distances import (
    FrameDistances,
    StepDistances,
    WaveDistance,
    of_logits,
    of_mels,
    of_waves,
)
from worker.engines.chatterbox.precision_check.reference_run import RecordedEngine, Trajectory
from worker.engines.chatterbox.precision_check.statistics import Figures, Heard, Reported, figures, total
from worker.engines.chatterbox.precision_check.teacher_forced import LedEngine
from worker.engines.chatterbox.precision_check.verdict import Verdict, judge, understood
from worker.precision import Precision


@dataclass(frozen=True)
class Task:
    """What is to be compared."""

    engine: str
    checkpoint: Path
    cache: Path
    """Folder for what is computed once."""
    source: VoiceSource
    texts: Sequence[str]
    precisions: Sequence[Precision]
    seed: int
    language: str
    budget: int | None
    """Most speech tokens of a text; None: by its length."""
    listening: bool
    """Whether a recogniser is to listen, if it can."""

    @property
    def unheard(self) -> str | None:
        """Why no recogniser listens to this; None where it does, or was not to."""
        return recogniser.unable(self.language) if self.listening else None

    @property
    def steps(self) -> int:
        """Pieces of work that progress is told of."""
        each = len(self.texts)
        return 1 + each + len(self.precisions) * (1 + each)


class TextReport(Reported):
    """One text under one precision."""

    text: str
    figures: Figures


class PrecisionReport(Reported):
    """One precision over all texts, and text by text."""

    precision: Precision
    verdict: Verdict
    figures: Figures
    texts: list[TextReport]


class Report(Reported):
    """All that was found."""

    engine: str
    model: str
    """Which weights."""
    voice: str
    seed: int
    speech_seconds: float
    """How much upstream spoke."""
    stock: Heard | None
    """What a recogniser heard in upstream's own speech; None where none listened."""
    precisions: list[PrecisionReport]
    fit: bool
    """Whether every precision can be used."""
    notes: list[str]
    """What should be known of the figures."""


Tell = Callable[[int, str], None]
"""Is told how many pieces of work are done, and what is done next."""


def compare(task: Task, tell: Tell) -> Report:
    """Measure and judge every precision. Raises EngineError where a voice or text cannot be spoken."""
    progress = _Progress(tell)
    progress("loading upstream's classes")
    stock = RecordedEngine(task.engine, task.checkpoint, task.cache)
    stock.prepare(task.source)
    trajectories = []
    for number, utterance in enumerate(_utterances(task), 1):
        progress(f"upstream speaks text {number} of {len(task.texts)}")
        trajectories.append(stock.record(utterance, task.source))
    rate, model = stock.card.sample_rate, stock.model
    del stock
    heard = [_listen(task, each.utterance, each.samples, rate) for each in trajectories]
    in_stock = total([each for each in heard if each is not None])
    precisions = [_measured(task, each, trajectories, in_stock, progress) for each in task.precisions]
    return Report(
        engine=task.engine,
        model=model,
        voice=task.source.voice.name,
        seed=task.seed,
        speech_seconds=sum(len(each.samples) for each in trajectories) / rate,
        stock=in_stock,
        precisions=precisions,
        fit=all(each.verdict.fit for each in precisions),
        notes=list(_notes(task, in_stock)),
    )


class _Progress:
    """Counts the pieces of work, and tells of each when it begins."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._done = 0

    def __call__(self, doing: str) -> None:
        self._tell(self._done, doing)
        self._done += 1


@dataclass(frozen=True)
class _Measured:
    """One text under one precision."""

    steps: StepDistances
    frames: FrameDistances
    wave: WaveDistance
    heard: Heard | None


def _measured(
    task: Task, precision: Precision, trajectories: Sequence[Trajectory], stock: Heard | None, progress: _Progress
) -> PrecisionReport:
    progress(f"{precision}: laying out the weights")
    engine = LedEngine(task.engine, task.checkpoint, task.cache, precision)
    engine.prepare(task.source)
    each = []
    for number, trajectory in enumerate(trajectories, 1):
        progress(f"{precision}: text {number} of {len(trajectories)}")
        each.append(_along(task, engine, trajectory))
    overall = _figures(each)
    return PrecisionReport(
        precision=precision,
        verdict=judge(overall, stock),
        figures=overall,
        texts=[TextReport(text=text, figures=_figures([one])) for text, one in zip(task.texts, each, strict=True)],
    )


def _along(task: Task, engine: LedEngine, trajectory: Trajectory) -> _Measured:
    logits = engine.logits(trajectory, task.source)
    # The same draws for every precision.
    draws = torch.Generator().manual_seed(task.seed)
    return _Measured(
        steps=of_logits(trajectory.logits, logits, temperature=trajectory.temperature, generator=draws),
        frames=of_mels(trajectory.mel, engine.mel(trajectory, task.source.voice)),
        wave=of_waves(trajectory.wave, engine.wave(trajectory)),
        # What is no number cannot be spoken, and counts against the precision anyway.
        heard=_spoken(task, engine, trajectory.utterance) if bool(logits.isfinite().all()) else None,
    )


def _spoken(task: Task, engine: LedEngine, utterance: Utterance) -> Heard | None:
    """What a recogniser hears where the engine speaks by itself; None where none listens."""
    if not _listens(task):
        return None
    try:
        samples = np.concatenate(list(engine.synthesize(utterance, task.source, Cancellation())))
    except UnspeakableError:
        # Upstream could speak it.
        samples = np.zeros(engine.card.sample_rate, np.float32)
    return _listen(task, utterance, samples, engine.card.sample_rate)


def _figures(measured: Sequence[_Measured]) -> Figures:
    return figures(
        [each.steps for each in measured],
        [each.frames for each in measured],
        [each.wave for each in measured],
        [each.heard for each in measured if each.heard is not None],
    )


def _utterances(task: Task) -> Iterator[Utterance]:
    card = CARDS[task.engine]
    own = {name: value for name, value in task.source.voice.parameters.items() if card.parameter(name) is not None}
    if card.parameter("language") is not None:
        own["language"] = task.language
    for number, text in enumerate(task.texts):
        yield Utterance(
            id=f"text-{number}",
            text=text,
            voice=task.source.voice.name,
            seed=task.seed,
            parameters=own,
            token_budget=task.budget,
        )


def _listens(task: Task) -> bool:
    return task.listening and task.unheard is None


def _listen(task: Task, utterance: Utterance, samples: Samples, rate: int) -> Heard | None:
    return recogniser.listen(utterance.text, samples, rate) if _listens(task) else None


def _notes(task: Task, stock: Heard | None) -> Iterator[str]:
    if task.unheard is not None:
        yield task.unheard
    if stock is not None and not understood(stock):
        yield (
            f"the recogniser does not understand upstream's own speech (word error rate {stock.rate:.0%}): "
            "word error rates say nothing here, and do not count"
        )
