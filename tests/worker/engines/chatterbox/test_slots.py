"""The batched engine's slots: the order of work, voice prefixes, and that every slot becomes free again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.batched import BUDGET, SLOTS, TEXTS, all_samples, begin, drop, start
from tests.support.stock import BUILT_IN, TOKEN_SAMPLES, CountedCancellation, cloned
from tests.support.tiny_models import TinyCheckpoint
from worker.cards import SLOT_POSITIONS
from worker.engines.base import (
    Cancellation,
    CancelledError,
    ModelUnavailableError,
    Samples,
    UnspeakableError,
    VoiceSource,
)
from worker.engines.chatterbox import batched as module
from worker.engines.chatterbox.batched import MAX_POSITIONS, BatchedEngine
from worker.engines.chatterbox.t3 import voice_prefix
from worker.engines.chatterbox.t3.sampling import STOP
from worker.options import EngineOptions


@pytest.fixture(scope="module", params=["turbo", "chatterbox"])
def batched(
    request: pytest.FixtureRequest, tiny_checkpoint: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> BatchedEngine:
    """An engine for each kind of T3."""
    return start(request.param, tiny_checkpoint(request.param), tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def nothing_is_left_over(batched: BatchedEngine) -> Iterator[None]:
    """Every slot is free and the S3Gen queue empty after each test."""
    yield
    assert batched._decoder.free_slots == SLOTS
    assert batched._decoder.idle
    assert not batched._order.s3gen_queue


@pytest.fixture(scope="module")
def ada(batched: BatchedEngine, tmp_path_factory: pytest.TempPathFactory) -> VoiceSource:
    source = cloned(tmp_path_factory.mktemp("voices"), turbo=batched.loaded.variant.turbo)
    batched.prepare(source)
    return source


# The order of work


def test_s3gen_goes_first_and_takes_one_utterance_at_a_time(batched: BatchedEngine) -> None:
    expected = [all_samples(begin(batched, seed=seed)) for seed in (1, 2)]
    first, second, decoding = begin(batched, seed=1), begin(batched, seed=2), begin(batched, seed=3, budget=60)
    chunks: list[Samples] = []
    while len(batched._order.s3gen_queue) < 2:
        chunks.append(next(first))
        next(second)
        next(decoding)
    (sequence,) = (each for each in batched._decoder._sequences if not each.sampler.finished)
    tokens = len(sequence.sampler.tokens)
    for chunk in first:
        chunks.append(chunk)
        next(decoding)
        assert len(sequence.sampler.tokens) == tokens
    assert np.array_equal(np.concatenate(chunks), expected[0])
    assert np.array_equal(all_samples(second), expected[1])
    for _ in range(2):
        next(decoding)
    assert len(sequence.sampler.tokens) > tokens
    drop(decoding, after=0)


# Voice prefixes


def test_a_voice_prefix_is_computed_once(batched: BatchedEngine, ada: VoiceSource) -> None:
    own: list[dict[str, Any]] = [{}] if batched.loaded.variant.turbo else [{}, {"exaggeration": 1.25}]
    kinds = [(source, parameters) for source in (BUILT_IN, ada) for parameters in own]
    for source, parameters in kinds:
        drop(begin(batched, source=source, **parameters), after=3)
    before = batched._prefixes.entries
    computed = [prefix.shared for prefix in before.values()]
    assert None not in computed
    assert len(before) >= len(kinds)
    for source, parameters in kinds:
        drop(begin(batched, TEXTS[4], source, 2, **parameters), after=3)
    assert batched._prefixes.entries == before
    assert [prefix.shared for prefix in before.values()] == computed


def test_the_prefix_of_a_changed_voice_is_computed_again(batched: BatchedEngine, ada: VoiceSource) -> None:
    before = batched._prefixes.entries
    batched.prepare(ada)
    own = [key for key in batched._prefixes.entries if key.voice == "ada"]
    assert len(own) == 1
    assert batched._prefixes.entries[own[0]].shared is not None, "it is computed at once while the engine is idle"
    assert batched._prefixes.entries[own[0]] is not before.get(own[0])
    others = [key for key in before if key.voice != "ada"]
    assert [batched._prefixes.entries[key] for key in others] == [before[key] for key in others]


def test_preparing_a_voice_does_not_delay_utterances_in_flight(batched: BatchedEngine, ada: VoiceSource) -> None:
    begun = begin(batched)
    next(begun)
    batched.prepare(ada)
    assert not [key for key in batched._prefixes.entries if key.voice == "ada"]
    drop(begun, after=1)
    drop(begin(batched, source=ada), after=10)
    assert [prefix.shared for key, prefix in batched._prefixes.entries.items() if key.voice == "ada"] != [None]


def test_the_most_recently_used_prefixes_are_cached(
    batched: BatchedEngine, ada: VoiceSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    for source in (BUILT_IN, ada):
        batched.prepare(source)
    expected = all_samples(begin(batched, source=ada, budget=1))
    monkeypatch.setattr(voice_prefix, "MAX_PREFIX_POSITIONS", 10)
    drop(begin(batched), after=1)
    assert [key.voice for key in batched._prefixes.entries] == ["default"]
    batched.prepare(ada)
    assert [key.voice for key in batched._prefixes.entries] == ["default"], "precomputing evicts no prefix"
    assert np.array_equal(all_samples(begin(batched, source=ada, budget=1)), expected)
    assert [key.voice for key in batched._prefixes.entries] == ["ada"]


# Cancellation


def test_a_cancelled_utterance_frees_its_slot_and_leaves_the_others_alone(batched: BatchedEngine) -> None:
    expected = all_samples(begin(batched))
    counted = CountedCancellation()
    all_samples(begin(batched, TEXTS[1], seed=2, cancellation=counted))
    assert counted.checks > BUDGET + 10, "it checks at every token and every step of S3Gen"
    for at in (1, 2, 5, BUDGET + 3, counted.checks - 1):
        leaving = begin(batched, TEXTS[1], BUILT_IN, 2, CountedCancellation(at))
        staying = begin(batched)
        chunks: list[Samples] = []
        with pytest.raises(CancelledError):
            chunks += [next(staying) for _ in leaving]
        assert np.array_equal(np.concatenate([*chunks, *staying]), expected)


def test_an_utterance_in_the_s3gen_queue_can_be_cancelled(batched: BatchedEngine) -> None:
    # The utterance that is added last is a step behind.
    expected = [all_samples(begin(batched, budget=budget)) for budget in (BUDGET, BUDGET - 1)]
    cancellation = Cancellation()
    first, waiting = begin(batched), begin(batched, seed=2, cancellation=cancellation)
    last = begin(batched, budget=BUDGET - 1)
    chunks: list[Samples] = []
    while len(batched._order.s3gen_queue) < 3:
        chunks.append(next(first))
        next(waiting)
        next(last)
    cancellation.request()
    with pytest.raises(CancelledError):
        next(waiting)
    assert np.array_equal(np.concatenate([*chunks, *first]), expected[0])
    assert np.array_equal(all_samples(last), expected[1])


@pytest.mark.parametrize("turns", [1, 4, BUDGET + 4])
def test_an_utterance_that_is_dropped_frees_its_slot(batched: BatchedEngine, turns: int) -> None:
    drop(begin(batched, TEXTS[1], seed=2), after=turns)


# Failures


def test_a_text_of_too_many_tokens_is_refused_and_takes_no_slot(
    batched: BatchedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = all_samples(begin(batched))
    tokenizer = batched.loaded.upstream.tokenizer
    if batched.loaded.variant.turbo:
        monkeypatch.setattr(tokenizer, "model_max_length", 10**6)
    for _ in range(SLOTS + 1):
        with pytest.raises(UnspeakableError, match=r"tokens, and .* fit into one utterance"):
            next(begin(batched, "\U0001f600, " * 800 + " hello", budget=1000))
    assert np.array_equal(all_samples(begin(batched)), before)


def test_the_longest_text_there_may_be_fits(batched: BatchedEngine) -> None:
    """The most characters that the card allows, with the largest token budget."""
    drop(begin(batched, "x " * (batched.card.segments.maximum // 2), budget=1000), after=1)


def test_a_failure_while_adding_takes_no_slot(batched: BatchedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    before = all_samples(begin(batched))
    with monkeypatch.context() as broken:
        broken.setattr(module, "text_tokens", lambda *_: torch.tensor([10**6]))
        for _ in range(SLOTS + 1):
            with pytest.raises(IndexError):
                next(begin(batched))
    assert np.array_equal(all_samples(begin(batched)), before)


def test_a_failure_of_s3gen_leaves_its_queue_empty(batched: BatchedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    before = all_samples(begin(batched))
    with monkeypatch.context() as broken:
        broken.setattr(batched._s3gen.vocoder, "steps", lambda *_: iter([1 / 0]))
        with pytest.raises(ZeroDivisionError):
            all_samples(begin(batched))
    assert np.array_equal(all_samples(begin(batched)), before)


def test_a_text_without_any_token_is_refused(batched: BatchedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    head = batched._decoder._backbone.logits

    def always_stop(states: torch.Tensor) -> torch.Tensor:
        logits = head(states)
        logits[:, STOP] = 1e9
        return logits

    monkeypatch.setattr(batched._decoder._backbone, "logits", always_stop)
    if batched.loaded.variant.turbo:
        assert len(all_samples(begin(batched))) == 3 * TOKEN_SAMPLES, "Turbo appends a silence to every utterance"
        return
    with pytest.raises(UnspeakableError, match="no sound"):
        all_samples(begin(batched))


# Memory


def test_the_memory_of_a_slot_is_as_stated(batched: BatchedEngine) -> None:
    t3 = batched.loaded.upstream.t3
    rows, layers = (1, t3.cfg.n_layer) if t3.is_gpt else (2, t3.cfg.num_hidden_layers)
    width = t3.dim if t3.is_gpt else t3.cfg.num_attention_heads * t3.cfg.head_dim
    padded = batched._decoder._cache._values.shape[3]
    assert MAX_POSITIONS <= padded == SLOT_POSITIONS, "the card says so"
    assert batched._decoder.bytes_per_slot == rows * 2 * 4 * layers * width * padded


def test_more_slots_than_this_host_holds_are_refused(batched: BatchedEngine, tmp_path: Path) -> None:
    with pytest.raises(
        ModelUnavailableError, match=r"100000 slots of .* take up to .* GiB of memory, and this host has"
    ):
        BatchedEngine(EngineOptions(batched.card.name, tmp_path, slots=100_000), tmp_path)
