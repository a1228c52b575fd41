"""The batched engine's slots: in which order work is done, what voices share, and that nothing is ever left over."""

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
from worker.cards import POSITIONS
from worker.engines.base import (
    Cancellation,
    CancelledError,
    ModelUnavailableError,
    Samples,
    UnspeakableError,
    VoiceSource,
)
from worker.engines.chatterbox import batched as module
from worker.engines.chatterbox.batched import LENGTH, BatchedEngine
from worker.engines.chatterbox.t3.sampling import STOP


@pytest.fixture(scope="module", params=["turbo", "chatterbox"])
def batched(
    request: pytest.FixtureRequest, tiny_checkpoint: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> BatchedEngine:
    """One of each kind."""
    return start(request.param, tiny_checkpoint(request.param), tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def nothing_is_left_over(batched: BatchedEngine) -> Iterator[None]:
    """Neither a slot nor a place in the line."""
    yield
    assert batched._decoder.free_slots == SLOTS
    assert batched._decoder.idle
    assert not batched._line


@pytest.fixture(scope="module")
def ada(batched: BatchedEngine, tmp_path_factory: pytest.TempPathFactory) -> VoiceSource:
    source = cloned(tmp_path_factory.mktemp("voices"))
    batched.prepare(source)
    return source


# The order of work


def test_sound_goes_first_and_one_at_a_time(batched: BatchedEngine) -> None:
    expected = [all_samples(begin(batched, seed=seed)) for seed in (1, 2)]
    first, second, decoding = begin(batched, seed=1), begin(batched, seed=2), begin(batched, seed=3, budget=60)
    made: list[Samples] = []
    while len(batched._line) < 2:
        made.append(next(first))
        next(second)
        next(decoding)
    (row,) = (row for row in batched._decoder._sequences if not row.sampler.finished)
    tokens = len(row.sampler.tokens)
    for piece in first:
        made.append(piece)
        next(decoding)
        assert len(row.sampler.tokens) == tokens
    assert np.array_equal(np.concatenate(made), expected[0])
    assert np.array_equal(all_samples(second), expected[1])
    for _ in range(2):
        next(decoding)
    assert len(row.sampler.tokens) > tokens
    drop(decoding, after=0)


# Voices


def test_what_precedes_the_texts_of_a_voice_is_computed_once(batched: BatchedEngine, ada: VoiceSource) -> None:
    own: list[dict[str, Any]] = [{}] if batched._member.turbo else [{}, {"exaggeration": 1.25}]
    kinds = [(source, told) for source in (BUILT_IN, ada) for told in own]
    for source, told in kinds:
        drop(begin(batched, source=source, **told), after=3)
    before = dict(batched._prefixes)
    computed = [prefix.shared for prefix in before.values()]
    assert None not in computed
    assert len(before) >= len(kinds)
    for source, told in kinds:
        drop(begin(batched, TEXTS[4], source, 2, **told), after=3)
    assert batched._prefixes == before
    assert [prefix.shared for prefix in before.values()] == computed


def test_a_voice_that_changed_is_computed_afresh(batched: BatchedEngine, ada: VoiceSource) -> None:
    before = dict(batched._prefixes)
    batched.prepare(ada)
    mine = [key for key in batched._prefixes if key[0] == "ada"]
    assert len(mine) == 1
    assert batched._prefixes[mine[0]].shared is not None, "nobody waits at the start"
    assert batched._prefixes[mine[0]] is not before.get(mine[0])
    others = [key for key in before if key[0] != "ada"]
    assert [batched._prefixes[key] for key in others] == [before[key] for key in others]


def test_preparing_a_voice_holds_up_nobody(batched: BatchedEngine, ada: VoiceSource) -> None:
    begun = begin(batched)
    next(begun)
    batched.prepare(ada)
    assert not [key for key in batched._prefixes if key[0] == "ada"]
    drop(begun, after=1)
    drop(begin(batched, source=ada), after=10)
    assert [prefix.shared for key, prefix in batched._prefixes.items() if key[0] == "ada"] != [None]


def test_of_many_voices_those_used_last_are_kept(
    batched: BatchedEngine, ada: VoiceSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    for source in (BUILT_IN, ada):
        batched.prepare(source)
    expected = all_samples(begin(batched, source=ada, budget=1))
    monkeypatch.setattr(module, "PREFIX_POSITIONS", 10)
    drop(begin(batched), after=1)
    assert [name for name, _ in batched._prefixes] == ["default"]
    batched.prepare(ada)
    assert [name for name, _ in batched._prefixes] == ["default"], "it would drive out one that is in use"
    assert np.array_equal(all_samples(begin(batched, source=ada, budget=1)), expected)
    assert [name for name, _ in batched._prefixes] == ["ada"]


# Cancellation


def test_a_cancelled_utterance_frees_its_slot_and_leaves_the_others_alone(batched: BatchedEngine) -> None:
    expected = all_samples(begin(batched))
    looks = CountedCancellation()
    all_samples(begin(batched, TEXTS[1], seed=2, cancellation=looks))
    assert looks.looks > BUDGET + 10, "it looks at every token, and while the sound is made"
    for at in (1, 2, 5, BUDGET + 3, looks.looks - 1):
        leaving = begin(batched, TEXTS[1], BUILT_IN, 2, CountedCancellation(at))
        staying = begin(batched)
        made: list[Samples] = []
        with pytest.raises(CancelledError):
            made += [next(staying) for _ in leaving]
        assert np.array_equal(np.concatenate([*made, *staying]), expected)


def test_whoever_waits_in_line_may_leave_it(batched: BatchedEngine) -> None:
    # The last to join is a step behind.
    expected = [all_samples(begin(batched, budget=budget)) for budget in (BUDGET, BUDGET - 1)]
    cancellation = Cancellation()
    first, waiting = begin(batched), begin(batched, seed=2, cancellation=cancellation)
    last = begin(batched, budget=BUDGET - 1)
    made: list[Samples] = []
    while len(batched._line) < 3:
        made.append(next(first))
        next(waiting)
        next(last)
    cancellation.request()
    with pytest.raises(CancelledError):
        next(waiting)
    assert np.array_equal(np.concatenate([*made, *first]), expected[0])
    assert np.array_equal(all_samples(last), expected[1])


@pytest.mark.parametrize("turns", [1, 4, BUDGET + 4])
def test_an_utterance_that_is_dropped_frees_its_slot(batched: BatchedEngine, turns: int) -> None:
    drop(begin(batched, TEXTS[1], seed=2), after=turns)


# What goes wrong


def test_a_text_of_too_many_tokens_is_refused_and_takes_no_slot(
    batched: BatchedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = all_samples(begin(batched))
    tokenizer = batched._model.tokenizer
    if batched._member.turbo:
        monkeypatch.setattr(tokenizer, "model_max_length", 10**6)
    for _ in range(SLOTS + 1):
        with pytest.raises(UnspeakableError, match=r"tokens, and .* fit into one utterance"):
            next(begin(batched, "\U0001f600, " * 800 + " hello", budget=1000))
    assert np.array_equal(all_samples(begin(batched)), before)


def test_the_longest_text_there_may_be_fits(batched: BatchedEngine) -> None:
    """Of the characters that the card allows, in the alphabet; and with all the tokens that it may take."""
    assert batched.card.longest_text is not None
    drop(begin(batched, "x " * (batched.card.longest_text // 2), budget=1000), after=1)


def test_a_failure_while_joining_takes_no_slot(batched: BatchedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    before = all_samples(begin(batched))
    with monkeypatch.context() as broken:
        broken.setattr(module, "text_tokens", lambda *_: torch.tensor([10**6]))
        for _ in range(SLOTS + 1):
            with pytest.raises(IndexError):
                next(begin(batched))
    assert np.array_equal(all_samples(begin(batched)), before)


def test_a_failure_of_the_sound_takes_no_place_in_line(batched: BatchedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    before = all_samples(begin(batched))
    with monkeypatch.context() as broken:
        broken.setattr(batched._s3gen.vocoder, "steps", lambda *_: iter([1 / 0]))
        with pytest.raises(ZeroDivisionError):
            all_samples(begin(batched))
    assert np.array_equal(all_samples(begin(batched)), before)


def test_a_text_of_which_the_model_says_nothing_is_refused(
    batched: BatchedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = batched._decoder._backbone.logits

    def only_the_end(states: torch.Tensor) -> torch.Tensor:
        logits = head(states)
        logits[:, STOP] = 1e9
        return logits

    monkeypatch.setattr(batched._decoder._backbone, "logits", only_the_end)
    if batched._member.turbo:
        assert len(all_samples(begin(batched))) == 3 * TOKEN_SAMPLES, "it adds a silence to everything"
        return
    with pytest.raises(UnspeakableError, match="no sound"):
        all_samples(begin(batched))


# Memory


def test_the_memory_of_a_slot_is_as_stated(batched: BatchedEngine) -> None:
    t3 = batched._model.t3
    rows, layers = (1, t3.cfg.n_layer) if t3.is_gpt else (2, t3.cfg.num_hidden_layers)
    padded = batched._decoder._cache._values.shape[3]
    assert LENGTH <= padded == POSITIONS, "the card says so"
    assert batched._decoder.bytes_per_slot == rows * 2 * 4 * layers * t3.dim * padded


def test_more_slots_than_this_host_holds_are_refused(batched: BatchedEngine, tmp_path: Path) -> None:
    with pytest.raises(
        ModelUnavailableError, match=r"100000 slots of .* take up to .* GiB of memory, and this host has"
    ):
        BatchedEngine(batched.card.name, tmp_path, tmp_path, slots=100_000)
