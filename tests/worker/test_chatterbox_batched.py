"""The batched engine on tiny checkpoints: an utterance becomes what upstream makes of it, whoever else is there."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.services.real_worker import utterance
from tests.services.stock import BUILT_IN, CountedCancellation, StockEngine, cloned, say
from tests.services.stock import start as start_stock
from tests.services.tiny_models import TinyCheckpoint
from worker.engines.base import Cancellation, CancelledError, Samples, UnspeakableError, VoiceSource
from worker.engines.chatterbox import batched as module
from worker.engines.chatterbox.batched import LENGTH, BatchedEngine
from worker.engines.chatterbox.loading import MEMBERS
from worker.engines.chatterbox.sampling import STOP
from worker.precision import Precision

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


@pytest.fixture(scope="module", params=MEMBERS)
def engines(
    request: pytest.FixtureRequest, tiny_checkpoint: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> Pair:
    """Upstream's own and ours, of the same weights."""
    checkpoint, cache = tiny_checkpoint(request.param), tmp_path_factory.mktemp("cache")
    stock = start_stock(request.param, checkpoint, cache)
    batched = BatchedEngine(request.param, checkpoint, cache, slots=SLOTS)
    batched.prepare(BUILT_IN)
    return stock, batched


@pytest.fixture
def batched(engines: Pair) -> BatchedEngine:
    return engines[1]


@pytest.fixture(autouse=True)
def nothing_is_left_over(batched: BatchedEngine) -> Iterator[None]:
    """Neither a slot nor a place in the line."""
    yield
    assert len(batched._decoder._free) == SLOTS
    assert batched._decoder.idle
    assert not batched._line


@pytest.fixture(scope="module")
def ada(engines: Pair, tmp_path_factory: pytest.TempPathFactory) -> VoiceSource:
    source = cloned(tmp_path_factory.mktemp("voices"))
    for engine in engines:
        engine.prepare(source)
    return source


def settings(engine: BatchedEngine) -> list[dict[str, Any]]:
    return GPT2_SETTINGS if engine._member.turbo else LLAMA_SETTINGS


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
    spoken = utterance(text, voice=source.voice.name, seed=seed, token_budget=budget, parameters=own)
    return engine.synthesize(spoken, source, cancellation or Cancellation())


def whole(begun: Iterator[Samples]) -> Samples:
    return np.concatenate(list(begun))


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


# What it makes


def test_each_utterance_is_upstreams_own_whoever_joins_and_leaves(engines: Pair, ada: VoiceSource) -> None:
    stock, batched = engines
    voices = [BUILT_IN, ada]
    own = settings(batched)
    jobs = {
        number: (text, voices[number % 2], 100 + number, own[number % len(own)]) for number, text in enumerate(TEXTS)
    }
    begun = {
        number: partial(begin, batched, text, source, drawn, **told)
        for number, (text, source, drawn, told) in jobs.items()
    }
    made = together(begun, random.Random(3))
    for number, (text, source, drawn, told) in jobs.items():
        expected = say(stock, text, source, seed=drawn, budget=BUDGET, asked=told)
        assert made[number].shape == expected.shape
        assert made[number].dtype == np.float32
        assert np.abs(made[number] - expected).max() < 1e-4


def test_a_language_is_told_as_upstream_is_told(engines: Pair) -> None:
    stock, batched = engines
    if not batched._member.multilingual:
        assert batched.card.parameter("language") is None
        return
    austrian = replace(BUILT_IN, voice=BUILT_IN.voice.model_copy(update={"language": "de-AT"}))
    asked: list[tuple[VoiceSource, dict[str, Any]]] = [(BUILT_IN, {"language": "fr"}), (austrian, {})]
    for source, told in asked:
        expected = say(stock, "Ja, nun.", source, budget=3, asked=told)
        assert np.abs(whole(begin(batched, "Ja, nun.", source, 7, budget=3, **told)) - expected).max() < 1e-4
    with pytest.raises(UnspeakableError, match="does not speak 'tlh'"):
        next(begin(batched, language="tlh"))


def test_an_utterance_alone_and_among_others_is_the_same(batched: BatchedEngine) -> None:
    alone = whole(begin(batched, TEXTS[1], seed=3))
    seeds = [50, 3, 52, 53, 54, 55]
    begun = {number: partial(begin, batched, text, BUILT_IN, seeds[number]) for number, text in enumerate(TEXTS)}
    made = together(begun, random.Random(9))
    assert np.array_equal(made[1], alone)


def test_torchs_own_generator_makes_no_difference(batched: BatchedEngine) -> None:
    """Two utterances' noise would mix there."""
    expected = whole(begin(batched))
    made = []
    for number, piece in enumerate(begin(batched)):
        torch.manual_seed(number)
        made.append(piece)
    assert np.array_equal(np.concatenate(made), expected)


def test_a_text_too_short_to_be_guarded_is_spoken(batched: BatchedEngine) -> None:
    assert len(whole(begin(batched, "A"))) > 0


@pytest.mark.parametrize("precision", [Precision.BF16, Precision.INT8])
def test_less_precision_says_the_same_each_time(
    engines: Pair, tiny_checkpoint: TinyCheckpoint, tmp_path: Path, precision: Precision
) -> None:
    name = engines[0].card.name
    lesser = BatchedEngine(name, tiny_checkpoint(name), tmp_path, slots=2, precision=precision)
    lesser.prepare(BUILT_IN)
    alone = whole(begin(lesser))
    assert np.isfinite(alone).all()
    assert 0.001 < np.abs(alone).max() <= 1
    beside = begin(lesser, TEXTS[1], seed=2)
    next(beside)
    assert np.array_equal(whole(begin(lesser)), alone)
    whole(beside)


# The order of work


def test_sound_goes_first_and_one_at_a_time(batched: BatchedEngine) -> None:
    expected = [whole(begin(batched, seed=seed)) for seed in (1, 2)]
    first, second, decoding = begin(batched, seed=1), begin(batched, seed=2), begin(batched, seed=3, budget=60)
    made: list[Samples] = []
    while len(batched._line) < 2:
        made.append(next(first))
        next(second)
        next(decoding)
    (row,) = (row for row in batched._decoder._rows if not row.sampler.finished)
    tokens = len(row.sampler.tokens)
    for piece in first:
        made.append(piece)
        next(decoding)
        assert len(row.sampler.tokens) == tokens
    assert np.array_equal(np.concatenate(made), expected[0])
    assert np.array_equal(whole(second), expected[1])
    for _ in range(2):
        next(decoding)
    assert len(row.sampler.tokens) > tokens
    decoding.close()  # type: ignore[attr-defined]


# Voices


def test_what_precedes_the_texts_of_a_voice_is_computed_once(batched: BatchedEngine, ada: VoiceSource) -> None:
    told: list[dict[str, Any]] = [{}] if batched._member.turbo else [{}, {"exaggeration": 1.25}]
    for source in (BUILT_IN, ada):
        for own in told:
            whole(begin(batched, source=source, budget=1, **own))
    before = dict(batched._prefixes)
    computed = [prefix.prompt for prefix in before.values()]
    for source in (BUILT_IN, ada):
        for own in told:
            whole(begin(batched, TEXTS[4], source, 2, budget=1, **own))
    assert batched._prefixes == before
    assert [prefix.prompt for prefix in before.values()] == computed
    assert None not in computed
    names = [name for name, _ in before]
    assert names.count("ada") >= len(told)


def test_a_voice_that_changed_is_computed_afresh(batched: BatchedEngine, ada: VoiceSource) -> None:
    before = dict(batched._prefixes)
    batched.prepare(ada)
    mine = [key for key in batched._prefixes if key[0] == "ada"]
    assert len(mine) == 1
    assert batched._prefixes[mine[0]].prompt is not None, "nobody waits at the start"
    assert batched._prefixes[mine[0]] is not before.get(mine[0])
    others = [key for key in before if key[0] != "ada"]
    assert [batched._prefixes[key] for key in others] == [before[key] for key in others]


def test_preparing_a_voice_holds_up_nobody(batched: BatchedEngine, ada: VoiceSource) -> None:
    begun = begin(batched, budget=2)
    next(begun)
    batched.prepare(ada)
    assert not [key for key in batched._prefixes if key[0] == "ada"]
    whole(begun)
    assert np.isfinite(whole(begin(batched, source=ada, budget=1))).all()


def test_of_many_voices_those_used_last_are_kept(
    batched: BatchedEngine, ada: VoiceSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    for source in (BUILT_IN, ada):
        batched.prepare(source)
    expected = whole(begin(batched, source=ada, budget=1))
    monkeypatch.setattr(module, "PREFIX_POSITIONS", 10)
    whole(begin(batched, budget=1))
    assert [name for name, _ in batched._prefixes] == ["default"]
    batched.prepare(ada)
    assert [name for name, _ in batched._prefixes] == ["default"], "it would drive out one that is in use"
    assert np.array_equal(whole(begin(batched, source=ada, budget=1)), expected)
    assert [name for name, _ in batched._prefixes] == ["ada"]


# Cancellation


def test_a_cancelled_utterance_frees_its_slot_and_leaves_the_others_alone(batched: BatchedEngine) -> None:
    expected = whole(begin(batched))
    looks = CountedCancellation()
    whole(begin(batched, TEXTS[1], seed=2, cancellation=looks))
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
    expected = [whole(begin(batched, budget=budget)) for budget in (BUDGET, BUDGET - 1)]
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
    assert np.array_equal(whole(last), expected[1])


@pytest.mark.parametrize("turns", [1, 4, BUDGET + 4])
def test_an_utterance_that_is_dropped_frees_its_slot(batched: BatchedEngine, turns: int) -> None:
    begun = begin(batched, TEXTS[1], seed=2)
    for _ in range(turns):
        next(begun)
    begun.close()  # type: ignore[attr-defined]


# What goes wrong


def test_a_text_of_too_many_tokens_is_refused_and_takes_no_slot(
    batched: BatchedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = whole(begin(batched))
    tokenizer = batched._model.tokenizer
    if batched._member.turbo:
        monkeypatch.setattr(tokenizer, "model_max_length", 10**6)
    for _ in range(SLOTS + 1):
        with pytest.raises(UnspeakableError, match=r"tokens, and .* fit into one utterance"):
            next(begin(batched, "\U0001f600, " * 800 + " hello", budget=1000))
    assert np.array_equal(whole(begin(batched)), before)


def test_the_longest_text_there_may_be_fits(batched: BatchedEngine) -> None:
    """Of the characters that the card allows, in the alphabet; and with all the tokens that it may take."""
    assert batched.card.longest_text is not None
    begun = begin(batched, "x " * (batched.card.longest_text // 2), budget=1000)
    next(begun)
    begun.close()  # type: ignore[attr-defined]


def test_a_failure_while_joining_takes_no_slot(batched: BatchedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    before = whole(begin(batched))
    with monkeypatch.context() as broken:
        broken.setattr(module, "text_tokens", lambda *_: torch.tensor([10**6]))
        for _ in range(SLOTS + 1):
            with pytest.raises(IndexError):
                next(begin(batched))
    assert np.array_equal(whole(begin(batched)), before)


def test_a_failure_of_the_sound_takes_no_place_in_line(batched: BatchedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    before = whole(begin(batched))
    with monkeypatch.context() as broken:
        broken.setattr(batched._sound.vocoder, "pieces", lambda *_: iter([1 / 0]))
        with pytest.raises(ZeroDivisionError):
            whole(begin(batched))
    assert np.array_equal(whole(begin(batched)), before)


def test_a_text_of_which_the_model_says_nothing_is_refused(
    batched: BatchedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    if batched._member.turbo:
        return  # it adds a silence
    head = batched._decoder._backbone.logits

    def only_the_end(states: torch.Tensor) -> torch.Tensor:
        logits = head(states)
        logits[:, STOP] = 1e9
        return logits

    monkeypatch.setattr(batched._decoder._backbone, "logits", only_the_end)
    with pytest.raises(UnspeakableError, match="no sound"):
        # So short that no guard forbids the end.
        whole(begin(batched, "A"))


# Memory


def test_the_memory_of_a_slot_is_as_stated(batched: BatchedEngine) -> None:
    t3 = batched._model.t3
    rows, layers = (1, t3.cfg.n_layer) if t3.is_gpt else (2, t3.cfg.num_hidden_layers)
    padded = batched._decoder._cache._values.shape[3]
    assert LENGTH <= padded < LENGTH + 64
    assert batched._decoder.bytes_a_slot == rows * 2 * 4 * layers * t3.dim * padded
