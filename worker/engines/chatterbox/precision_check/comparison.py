"""Makes reference runs of an operator's texts, gives their inputs to each precision, and judges the differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from worker.cards import CARDS, FlowModel
from worker.contract import Utterance
from worker.engines.base import Cancellation, Samples, UnspeakableError, VoiceSource
from worker.engines.chatterbox.precision_check import recogniser
from worker.engines.chatterbox.precision_check.distances import (
    FrameDistances,
    StepDistances,
    WaveDistance,
    logit_distances,
    mel_distances,
    wave_distance,
)
from worker.engines.chatterbox.precision_check.reference_run import RecordingEngine, ReferenceRun
from worker.engines.chatterbox.precision_check.statistics import (
    ReportModel,
    Statistics,
    summarise,
)
from worker.engines.chatterbox.precision_check.teacher_forced import TeacherForcedEngine
from worker.engines.chatterbox.precision_check.verdict import Verdict, is_understood, judge
from worker.engines.chatterbox.precision_check.word_errors import WordErrors, total_word_errors
from worker.options import EngineOptions
from worker.precision import Precision


@dataclass(frozen=True)
class Task:
    """One comparison."""

    engine: str
    checkpoint: Path
    cache: Path
    """Folder for conditionals."""
    source: VoiceSource
    texts: Sequence[str]
    precisions: Sequence[Precision]
    seed: int
    language: str
    token_budget: int | None
    """Speech tokens of a text, at most; None: by its length."""
    recognise: bool
    """Whether to count word errors, if the recogniser is available."""
    flow: FlowModel = FlowModel.UPSTREAM
    flow_steps: int | None = None
    """Flow of the precisions, and its Euler steps; upstream's classes run their own, in as many steps as they do."""

    def options(self, precision: Precision) -> EngineOptions:
        """The options of the engine that runs a precision."""
        return EngineOptions(self.engine, self.cache, precision=precision, flow=self.flow, flow_steps=self.flow_steps)

    @property
    def unavailable_reason(self) -> str | None:
        """Why no word errors are counted; None where they are, or were not requested."""
        return recogniser.unavailable_reason(self.language) if self.recognise else None

    @property
    def steps(self) -> int:
        """Number of progress steps."""
        texts = len(self.texts)
        return 1 + texts + len(self.precisions) * (1 + texts)


class TextReport(ReportModel):
    """One text in one precision."""

    text: str
    figures: Statistics


class PrecisionReport(ReportModel):
    """One precision over all texts, and text by text."""

    precision: Precision
    verdict: Verdict
    figures: Statistics
    texts: list[TextReport]


class ComparisonReport(ReportModel):
    """The result of a comparison."""

    engine: str
    model: str
    """The model and the folder of its weights."""
    voice: str
    seed: int
    flow: str
    """What differs from upstream's flow, as `EngineOptions.flow_label` names it."""
    speech_seconds: float
    """Length of upstream's speech."""
    stock: WordErrors | None
    """Word errors in upstream's own speech; None where no recogniser was used."""
    precisions: list[PrecisionReport]
    fit: bool
    """Whether every precision can be used."""
    notes: list[str]
    """Limitations of the statistics."""


ProgressCallback = Callable[[int, str], None]
"""Called with the number of completed steps and a description of the next one."""


def compare(task: Task, on_progress: ProgressCallback) -> ComparisonReport:
    """Measure and judge every precision. Raises EngineError where a voice or text cannot be used."""
    progress = _Progress(on_progress)
    progress("loading upstream's classes")
    stock = RecordingEngine(task.engine, task.checkpoint, task.cache)
    stock.prepare(task.source)
    references = []
    for number, utterance in enumerate(_utterances(task), 1):
        progress(f"upstream speaks text {number} of {len(task.texts)}")
        references.append(stock.record(utterance, task.source))
    rate, model = stock.card.sample_rate, stock.model
    del stock
    found = [_word_errors(task, each.utterance, each.samples, rate) for each in references]
    stock_errors = total_word_errors([each for each in found if each is not None])
    precisions = [_measure(task, each, references, stock_errors, progress) for each in task.precisions]
    return ComparisonReport(
        engine=task.engine,
        model=model,
        voice=task.source.voice.name,
        seed=task.seed,
        flow=task.options(Precision.FP32).flow_label,
        speech_seconds=sum(len(each.samples) for each in references) / rate,
        stock=stock_errors,
        precisions=precisions,
        fit=all(each.verdict.fit for each in precisions),
        notes=list(_notes(task, stock_errors)),
    )


class _Progress:
    """Counts the steps, and reports each when it begins."""

    def __init__(self, callback: ProgressCallback) -> None:
        self._callback = callback
        self._completed = 0

    def __call__(self, description: str) -> None:
        self._callback(self._completed, description)
        self._completed += 1


@dataclass(frozen=True)
class _Measurement:
    """One text in one precision."""

    steps: StepDistances
    frames: FrameDistances
    wave: WaveDistance
    similarity: float | None
    word_errors: WordErrors | None


def _measure(
    task: Task,
    precision: Precision,
    references: Sequence[ReferenceRun],
    stock_errors: WordErrors | None,
    progress: _Progress,
) -> PrecisionReport:
    progress(f"{precision}: loading the weights")
    engine = TeacherForcedEngine(task.options(precision), task.checkpoint)
    engine.prepare(task.source)
    measurements = []
    for number, reference in enumerate(references, 1):
        progress(f"{precision}: text {number} of {len(references)}")
        measurements.append(_measure_text(task, engine, reference))
    overall = _summary(measurements)
    return PrecisionReport(
        precision=precision,
        verdict=judge(overall, stock_errors),
        figures=overall,
        texts=[
            TextReport(text=text, figures=_summary([measurement]))
            for text, measurement in zip(task.texts, measurements, strict=True)
        ],
    )


def _measure_text(task: Task, engine: TeacherForcedEngine, reference: ReferenceRun) -> _Measurement:
    logits = engine.logits(reference, task.source)
    # The same draws for every precision.
    generator = torch.Generator().manual_seed(task.seed)
    mel = engine.mel(reference, task.source.voice)
    similarity = None
    if task.options(Precision.FP32).flow_label:
        similarity = engine.speaker_similarity(reference.wave, engine.wave(reference, mel))
    return _Measurement(
        steps=logit_distances(reference.logits, logits, temperature=reference.temperature, generator=generator),
        frames=mel_distances(reference.mel, mel),
        wave=wave_distance(reference.wave, engine.wave(reference)),
        similarity=similarity,
        # Tokens cannot be drawn from NaN; the logits' distance then counts against the precision.
        word_errors=_own_word_errors(task, engine, reference.utterance) if bool(logits.isfinite().all()) else None,
    )


def _own_word_errors(task: Task, engine: TeacherForcedEngine, utterance: Utterance) -> WordErrors | None:
    """Word errors in the engine's own synthesis, not teacher-forced; None without a recogniser."""
    if not _recognises(task):
        return None
    try:
        samples = np.concatenate(list(engine.synthesize(utterance, task.source, Cancellation())))
    except UnspeakableError:
        # Upstream could synthesise the text, so every word counts as missing.
        samples = np.zeros(engine.card.sample_rate, np.float32)
    return _word_errors(task, utterance, samples, engine.card.sample_rate)


def _summary(measurements: Sequence[_Measurement]) -> Statistics:
    return summarise(
        [each.steps for each in measurements],
        [each.frames for each in measurements],
        [each.wave for each in measurements],
        [each.similarity for each in measurements if each.similarity is not None],
        [each.word_errors for each in measurements if each.word_errors is not None],
    )


def _utterances(task: Task) -> Iterator[Utterance]:
    card, voice = CARDS[task.engine], task.source.voice
    parameters = {name: value for name, value in voice.parameters.items() if card.parameter(name) is not None}
    if card.parameter("language") is not None:
        parameters["language"] = task.language
    for number, text in enumerate(task.texts):
        yield Utterance(
            id=f"text-{number}",
            text=text,
            voice=voice.name,
            seed=task.seed,
            parameters=parameters,
            token_budget=task.token_budget,
        )


def _recognises(task: Task) -> bool:
    return task.recognise and task.unavailable_reason is None


def _word_errors(task: Task, utterance: Utterance, samples: Samples, rate: int) -> WordErrors | None:
    return recogniser.count_word_errors(utterance.text, samples, rate) if _recognises(task) else None


def _notes(task: Task, stock_errors: WordErrors | None) -> Iterator[str]:
    if task.unavailable_reason is not None:
        yield task.unavailable_reason
    if stock_errors is not None and not is_understood(stock_errors):
        yield (
            f"the recogniser does not understand upstream's own speech (word error rate {stock_errors.rate:.0%}), "
            "so word error rates do not count"
        )
