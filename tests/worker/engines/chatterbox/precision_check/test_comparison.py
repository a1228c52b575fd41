"""Precisions compared with upstream's own classes on tiny checkpoints: statistics, verdicts, damage, notes."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.precisions import SUPPORTED, precision_params
from tests.support.real_worker import utterance
from tests.support.stock import BUILT_IN, StockEngine, cloned, synthesize
from tests.support.tiny_models import TinyCheckpoint, tiny_checkpoint_with_mean_flow
from worker.cards import FlowModel
from worker.engines.base import VoiceSource
from worker.engines.chatterbox.precision_check.comparison import ComparisonReport, Task, compare
from worker.engines.chatterbox.precision_check.reference_run import RecordingEngine
from worker.engines.chatterbox.precision_check.verdict import Fitness
from worker.engines.chatterbox.upstream.loading import load
from worker.precision import Precision

assert StockEngine is not None  # imported first: it suppresses upstream's warnings

TEXTS = ("Hi there.", "Where is it?")
BUDGET = 10

Compare = Callable[..., ComparisonReport]


@pytest.fixture(scope="module")
def checked(tiny_checkpoint: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Compare:
    """Compares precisions of an engine's tiny checkpoint."""
    folder = tmp_path_factory.mktemp("cache")
    torch.set_num_threads(1)

    def comparing(
        engine: str,
        precisions: Sequence[Precision] = (Precision.FP32,),
        *,
        source: VoiceSource = BUILT_IN,
        texts: Sequence[str] = TEXTS,
        language: str = "en",
        recognise: bool = False,
        on_progress: Callable[[int, str], None] = lambda _done, _doing: None,
        flow: FlowModel = FlowModel.UPSTREAM,
        flow_steps: int | None = None,
    ) -> ComparisonReport:
        own = flow is FlowModel.UPSTREAM
        checkpoint = tiny_checkpoint(engine) if own else tiny_checkpoint_with_mean_flow(engine)
        options = (3, language, BUDGET, recognise, flow, flow_steps)
        return compare(Task(engine, checkpoint, folder, source, texts, precisions, *options), on_progress)

    return comparing


# The reference run


@pytest.mark.parametrize("engine", ["turbo", "chatterbox"])
def test_recording_changes_neither_the_audio_nor_the_model(
    engine: str, tiny_checkpoint: TinyCheckpoint, tmp_path: Path
) -> None:
    recording = RecordingEngine(engine, tiny_checkpoint(engine), tmp_path)
    recording.prepare(BUILT_IN)
    expected = synthesize(recording, TEXTS[1], budget=BUDGET)
    model = recording.loaded.upstream
    before = _methods(model)
    request = utterance(TEXTS[1], voice="default", seed=7, token_budget=BUDGET)
    first, again = (recording.record(request, BUILT_IN) for _ in range(2))
    assert np.array_equal(first.samples, expected)
    assert first.tokens == again.tokens
    assert torch.equal(first.logits, again.logits)
    assert _methods(model) == before
    assert not model.t3.speech_head._forward_hooks


def _methods(model: Any) -> list[object]:
    parts = {"inference": model.t3, "inference_turbo": model.t3, "flow_inference": model.s3gen}
    return [vars(part).get(name) for name, part in (parts | {"hift_inference": model.s3gen}).items()]


def test_a_reference_run_has_every_stage(tiny_checkpoint: TinyCheckpoint, tmp_path: Path) -> None:
    """Upstream draws one token before its loop, which the budget does not count."""
    recording = RecordingEngine("turbo", tiny_checkpoint("turbo"), tmp_path)
    recording.prepare(BUILT_IN)
    reference = recording.record(utterance(TEXTS[0], voice="default", seed=7, token_budget=BUDGET), BUILT_IN)
    steps = BUDGET + 1
    assert (len(reference.tokens), reference.logits.shape[0], reference.logits.dtype) == (steps, steps, torch.float32)
    assert reference.s3gen_tokens.tolist()[:steps] == reference.tokens
    assert reference.mel.shape == (2 * len(reference.s3gen_tokens), 80)
    assert reference.wave.shape == reference.samples.shape == (960 * len(reference.s3gen_tokens),)
    assert reference.temperature == 0.8
    # Fade-in and watermark follow the wave.
    assert np.abs(reference.wave.numpy()[2000:] - reference.samples[2000:]).max() < 0.05


# Verdicts


@pytest.fixture(scope="module")
def with_all_precisions(checked: Compare) -> Callable[[str], ComparisonReport]:
    """Compares all precisions that this processor supports with upstream; of Nano fp32 only, a smaller Turbo."""

    @cache
    def comparing(engine: str) -> ComparisonReport:
        return checked(engine, (Precision.FP32,) if engine == "nano" else SUPPORTED, texts=TEXTS[:1])

    return comparing


@pytest.mark.parametrize(
    ("engine", "precision"),
    [
        ("nano", Precision.FP32),
        *(
            pytest.param(engine, *param.values, marks=param.marks)
            for engine in ("turbo", "chatterbox", "multilingual")
            for param in precision_params()
        ),
    ],
)
def test_each_precision_that_this_processor_supports_is_fit(
    engine: str, precision: Precision, with_all_precisions: Callable[[str], ComparisonReport]
) -> None:
    report = with_all_precisions(engine)
    assert report.fit
    assert tuple(each.precision for each in report.precisions) == ((precision,) if engine == "nano" else SUPPORTED)
    (each,) = (each for each in report.precisions if each.precision is precision)
    figures = each.figures
    if precision is Precision.FP32:
        assert each.verdict.fitness is Fitness.EQUAL
        assert figures.logit_largest < 1e-5
        assert figures.draw_agreement == 1.0
        assert figures.mel_largest < 1e-4
        assert figures.vocoder_ratio > 90
    else:
        assert each.verdict.fitness is Fitness.CLOSE
        assert 1e-5 < figures.logit_largest < 0.1
        assert 1e-9 < figures.divergence_mean < 0.01
        assert 1e-4 < figures.mel_mean < figures.mel_largest < 2
        assert 0 < figures.mel_cepstral < 1


def test_statistics_of_each_text_and_of_all(checked: Compare) -> None:
    (each,) = checked("turbo").precisions
    overall, texts = each.figures, [text.figures for text in each.texts]
    assert [text.text for text in each.texts] == list(TEXTS)
    assert overall.speaker_similarity is None
    assert overall.steps == sum(text.steps for text in texts) == 2 * (BUDGET + 1)
    assert overall.frames == sum(text.frames for text in texts)
    assert overall.logit_largest == max(text.logit_largest for text in texts)
    assert overall.mel_largest == max(text.mel_largest for text in texts)
    assert min(text.vocoder_ratio for text in texts) <= overall.vocoder_ratio
    assert overall.clear_steps == sum(text.clear_steps for text in texts)
    assert overall.word_errors is None


def test_a_cloned_voice_with_its_own_parameters(checked: Compare, tmp_path: Path) -> None:
    source = cloned(tmp_path, turbo=False)
    warm = source.voice.model_copy(update={"parameters": {"temperature": 1.3, "exaggeration": 0.7}})
    report = checked("chatterbox", source=VoiceSource(warm, source.reference), texts=TEXTS[:1])
    assert report.voice == "ada"
    assert report.precisions[0].verdict.fitness is Fitness.EQUAL


# Other flows


def test_the_mean_flow_is_another_rendering_of_the_same_tokens(checked: Compare) -> None:
    report = checked("chatterbox", flow=FlowModel.MEANFLOW, texts=TEXTS[:1])
    (each,) = report.precisions
    assert report.flow == "meanflow"
    assert report.model.startswith("chatterbox from "), "upstream's classes run their own flow"
    assert each.figures.logit_largest < 1e-5
    assert each.figures.mel_cepstral > 1
    # Random weights hardly tell speakers apart.
    assert each.figures.speaker_similarity == pytest.approx(1, abs=0.1)
    assert each.verdict.fitness is Fitness.RENDERING


def test_fewer_steps_are_compared_with_upstreams_number(checked: Compare) -> None:
    report = checked("turbo", flow_steps=1, texts=TEXTS[:1])
    (each,) = report.precisions
    assert report.flow == "flow of 1 step"
    assert each.figures.mel_largest > 1e-2
    assert each.figures.vocoder_ratio > 90
    assert each.figures.speaker_similarity is not None
    assert each.verdict.fitness is Fitness.RENDERING


# Damage


def _scrambled(model: Any) -> None:
    head = model.t3.speech_head
    head.weight.data = head.weight.data.flip(0).contiguous()


def _slightly_off(model: Any) -> None:
    head = model.t3.speech_head
    head.weight.data = head.weight.data * (1 + 0.2 * torch.randn(head.weight.shape))


def _no_number(model: Any) -> None:
    head = model.t3.speech_head
    head.weight.data = torch.full_like(head.weight.data, torch.nan)


def _blurred(model: Any) -> None:
    out = model.s3gen.flow.decoder.estimator.final_proj
    out.weight.data = out.weight.data * 3


def _hoarse(model: Any) -> None:
    out = model.s3gen.mel2wav.conv_post
    out.bias.data = out.bias.data + 0.5


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_scrambled, "same most likely next token where upstream's is clear"),
        (_slightly_off, "divergence of the next token"),
        (_no_number, "divergence of the next token: not a number"),
        (_blurred, "mel-cepstral distance"),
        (_hoarse, "vocoder's signal-to-noise ratio"),
    ],
)
def test_damage_is_found_and_named(
    damage: Callable[[Any], None], reason: str, checked: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damages the model that the precision uses; upstream's is loaded first and stays intact."""
    loaded: list[str] = []

    def damaging(engine: str, folder: Path, flow: FlowModel) -> Any:
        model = load(engine, folder, flow)
        if loaded:
            torch.manual_seed(0)
            damage(model)
        loaded.append(engine)
        return model

    monkeypatch.setattr("worker.engines.chatterbox.upstream.loaded_model.load", damaging)
    # The weights cache has the packed weights of the model without damage.
    monkeypatch.setattr("worker.engines.chatterbox.batched.weights_cache", lambda *_: nullcontext())
    report = checked("turbo", texts=TEXTS[:1], recognise=damage is _no_number)
    verdict = report.precisions[0].verdict
    assert verdict.fitness is Fitness.NOT_RECOMMENDED
    assert not report.fit
    assert any(each.startswith(reason) for each in verdict.reasons), verdict.reasons


# Recogniser, notes and progress


def test_speech_of_random_weights_is_not_understood(checked: Compare) -> None:
    report = checked("turbo", recognise=True, texts=(TEXTS[0], "1984 [laugh]"))
    assert report.stock is not None
    # A text without words is synthesised as well, and counts in the other statistics.
    assert report.stock.words == 2
    assert report.stock.rate > 0.5
    fp32 = report.precisions[0]
    assert fp32.figures.word_errors == report.stock
    assert [text.figures.word_errors is None for text in fp32.texts] == [False, True]
    assert fp32.verdict.fitness is Fitness.EQUAL
    (note,) = report.notes
    assert "does not understand upstream's own speech" in note


def test_no_recogniser_for_other_languages(checked: Compare) -> None:
    report = checked("turbo", recognise=True, language="fr", texts=TEXTS[:1])
    assert report.stock is None
    assert report.precisions[0].figures.word_errors is None
    assert report.precisions[0].verdict.fitness is Fitness.EQUAL
    (note,) = report.notes
    assert "'fr'" in note


def test_no_recogniser_on_this_host(checked: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def found(name: str) -> ModuleSpec | None:
        return None if name == "pocketsphinx" else find(name)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    reported: list[tuple[int, str]] = []
    report = checked("turbo", recognise=True, texts=TEXTS[:1], on_progress=lambda *event: reported.append(event))
    assert report.stock is None
    assert "pip install -e '.[check]'" in report.notes[0]
    assert reported == [
        (0, "loading upstream's classes"),
        (1, "upstream speaks text 1 of 1"),
        (2, "fp32: loading the weights"),
        (3, "fp32: text 1 of 1"),
    ]
