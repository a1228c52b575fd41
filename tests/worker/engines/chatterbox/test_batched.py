"""The batched engine on tiny checkpoints gives upstream's audio, whatever other utterances are in flight."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.batched import BUDGET, TEXTS, all_samples, begin, start, together
from tests.support.precisions import precision_params
from tests.support.stock import BUILT_IN, StockEngine, cloned, synthesize
from tests.support.stock import start as start_stock
from tests.support.tiny_models import MODELS, TinyCheckpoint
from worker.engines.base import UnspeakableError, VoiceSource
from worker.engines.chatterbox.batched import BatchedEngine
from worker.precision import Precision

GPT2_SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.0, "top_p": 1.0},
    {"top_k": 0, "repetition_penalty": 1.0},
    {"top_k": 5},
]
LLAMA_SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.0, "top_p": 0.9, "exaggeration": 1.5},
    {"cfg_weight": 0, "repetition_penalty": 1.0},
    {"min_p": 0, "exaggeration": 0.5, "cfg_weight": 1},
]

Pair = tuple[StockEngine, BatchedEngine]


@pytest.fixture(scope="module", params=MODELS)
def engines(
    request: pytest.FixtureRequest, tiny_checkpoint: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> Pair:
    """The stock and the batched engine with the same weights."""
    checkpoint, cache = tiny_checkpoint(request.param), tmp_path_factory.mktemp("cache")
    return start_stock(request.param, checkpoint, cache), start(request.param, checkpoint, cache)


@pytest.fixture
def batched(engines: Pair) -> BatchedEngine:
    return engines[1]


@pytest.fixture(scope="module")
def ada(engines: Pair, tmp_path_factory: pytest.TempPathFactory) -> VoiceSource:
    source = cloned(tmp_path_factory.mktemp("voices"), turbo=engines[0].loaded.variant.turbo)
    for engine in engines:
        engine.prepare(source)
    return source


def settings(engine: BatchedEngine) -> list[dict[str, Any]]:
    return GPT2_SETTINGS if engine.loaded.variant.turbo else LLAMA_SETTINGS


def test_each_utterance_equals_upstreams_whatever_others_are_in_flight(engines: Pair, ada: VoiceSource) -> None:
    stock, batched = engines
    voices = [BUILT_IN, ada]
    own = settings(batched)
    jobs = {
        number: (text, voices[number % 2], 100 + number, own[number % len(own)]) for number, text in enumerate(TEXTS)
    }
    begun = {
        number: partial(begin, batched, text, source, seed, **parameters)
        for number, (text, source, seed, parameters) in jobs.items()
    }
    found = together(begun, random.Random(3))
    for number, (text, source, seed, parameters) in jobs.items():
        expected = synthesize(stock, text, source, seed=seed, budget=BUDGET, parameters=parameters)
        assert found[number].shape == expected.shape
        assert found[number].dtype == np.float32
        assert np.abs(found[number] - expected).max() < 1e-4


def test_the_language_reaches_the_model_as_in_upstream(engines: Pair) -> None:
    stock, batched = engines
    if not batched.loaded.variant.multilingual:
        assert batched.card.parameter("language") is None
        return
    austrian = replace(BUILT_IN, voice=BUILT_IN.voice.model_copy(update={"language": "de-AT"}))
    cases: list[tuple[VoiceSource, dict[str, Any]]] = [(BUILT_IN, {"language": "fr"}), (austrian, {})]
    for source, parameters in cases:
        expected = synthesize(stock, "Ja, nun.", source, budget=3, parameters=parameters)
        assert (
            np.abs(all_samples(begin(batched, "Ja, nun.", source, 7, budget=3, **parameters)) - expected).max() < 1e-4
        )
    with pytest.raises(UnspeakableError, match="does not speak 'tlh'"):
        next(begin(batched, language="tlh"))


def test_an_utterance_alone_and_in_a_batch_is_the_same(batched: BatchedEngine) -> None:
    alone = all_samples(begin(batched, TEXTS[1], seed=3))
    seeds = [50, 3, 52, 53, 54, 55]
    begun = {number: partial(begin, batched, text, BUILT_IN, seeds[number]) for number, text in enumerate(TEXTS)}
    found = together(begun, random.Random(9))
    assert np.array_equal(found[1], alone)


def test_torchs_global_generator_makes_no_difference(batched: BatchedEngine) -> None:
    """Utterances would share it, and so depend on each other."""
    expected = all_samples(begin(batched))
    found = []
    for number, chunk in enumerate(begin(batched)):
        torch.manual_seed(number)
        found.append(chunk)
    assert np.array_equal(np.concatenate(found), expected)


def test_a_text_too_short_for_the_guard_is_synthesised(batched: BatchedEngine) -> None:
    assert len(all_samples(begin(batched, "A"))) > 0


@pytest.mark.parametrize("precision", precision_params([Precision.BF16, Precision.INT8]))
def test_reduced_precision_gives_the_same_samples_each_time(
    engines: Pair, tiny_checkpoint: TinyCheckpoint, tmp_path: Path, precision: Precision
) -> None:
    name = engines[0].card.name
    reduced = start(name, tiny_checkpoint(name), tmp_path, slots=2, precision=precision)
    alone = all_samples(begin(reduced))
    assert np.isfinite(alone).all()
    assert 0.001 < np.abs(alone).max() <= 1
    beside = begin(reduced, TEXTS[1], seed=2)
    next(beside)
    assert np.array_equal(all_samples(begin(reduced)), alone)
    all_samples(beside)


def test_a_shorter_prompt_gives_upstreams_audio_for_that_prompt(
    engines: Pair, ada: VoiceSource, tiny_checkpoint: TinyCheckpoint, tmp_path: Path
) -> None:
    stock, batched = engines
    name = batched.card.name
    shorter = start(name, tiny_checkpoint(name), tmp_path, prompt_seconds=1)
    shorter.prepare(ada)
    tensors = stock.loaded.prepared[ada.voice.name]
    tokens, frames = tensors["gen.prompt_token"][:, -25:], tensors["gen.prompt_feat"][:, -50:]
    shortened = {"gen.prompt_token": tokens, "gen.prompt_token_len": torch.tensor([25]), "gen.prompt_feat": frames}
    stock.loaded.prepared[ada.voice.name] = tensors | shortened
    try:
        expected = synthesize(stock, TEXTS[1], ada, seed=5, budget=BUDGET)
    finally:
        stock.loaded.prepared[ada.voice.name] = tensors
    found = all_samples(begin(shorter, TEXTS[1], ada, seed=5))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-4
    assert np.abs(all_samples(begin(batched, TEXTS[1], ada, seed=5)) - expected).max() > 1e-2
