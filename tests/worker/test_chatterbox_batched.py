"""The batched engine on tiny checkpoints: an utterance becomes what upstream makes of it, whoever else is there."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from tests.services.real_worker import utterance
from tests.services.stock import BUILT_IN, CountedCancellation, StockEngine, cloned, say
from tests.services.stock import start as start_stock
from tests.services.tiny_models import TinyCheckpoint
from worker.engines.base import Cancellation, CancelledError, Samples, UnspeakableError, VoiceSource
from worker.engines.chatterbox.batched import BatchedEngine
from worker.engines.chatterbox.gpt2 import Gpt2, Span
from worker.engines.chatterbox.sampling import Gpt2Sampler

SLOTS = 4
TEXTS = (
    "Hello there.",
    "A longer text that goes on for a while, with a few more words in it.",
    "Third one!",
    "And [laugh] a fourth, which is of middling length.",
    "Five.",
    "The sixth, with numbers such as 42 and 1984, is spoken too.",
)

LOGITS_SHARE = 1e-3
"""Most that logits may differ from upstream's, as a share of their range."""

Pair = tuple[StockEngine, BatchedEngine]


@pytest.fixture(scope="module", params=["turbo", "nano"])
def engines(
    request: pytest.FixtureRequest, tiny_checkpoint: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> Pair:
    """Upstream's own and ours, of the same weights."""
    checkpoint, cache = tiny_checkpoint(request.param), tmp_path_factory.mktemp("cache")
    stock = start_stock(request.param, checkpoint, cache)
    batched = BatchedEngine(request.param, checkpoint, cache, slots=SLOTS)
    batched.prepare(BUILT_IN)
    return stock, batched


@pytest.fixture(scope="module")
def ada(engines: Pair, tmp_path_factory: pytest.TempPathFactory) -> VoiceSource:
    source = cloned(tmp_path_factory.mktemp("voices"))
    for engine in engines:
        engine.prepare(source)
    return source


def begin(
    engine: BatchedEngine,
    text: str,
    source: VoiceSource,
    seed: int,
    cancellation: Cancellation | None = None,
    *,
    budget: int = 20,
    **own: Any,
) -> Iterator[Samples]:
    spoken = utterance(text, voice=source.voice.name, seed=seed, token_budget=budget, parameters=own)
    return engine.synthesize(spoken, source, cancellation or Cancellation())


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


@pytest.mark.parametrize("seed", range(2))
def test_each_utterance_is_upstreams_own_whoever_joins_and_leaves(engines: Pair, ada: VoiceSource, seed: int) -> None:
    stock, batched = engines
    voices = [BUILT_IN, ada]
    own: list[dict[str, Any]] = [
        {},
        {"temperature": 1.0, "top_p": 1.0},
        {"top_k": 0, "repetition_penalty": 1.0},
        {"top_k": 5},
    ]
    jobs = {
        number: (text, voices[number % 2], 100 * seed + number, own[(number + seed) % len(own)])
        for number, text in enumerate(TEXTS)
    }
    begun = {
        number: partial(begin, batched, text, source, drawn, **told)
        for number, (text, source, drawn, told) in jobs.items()
    }
    made = together(begun, random.Random(seed))
    for number, (text, source, drawn, told) in jobs.items():
        expected = say(stock, text, source, seed=drawn, budget=20, asked=told)
        assert made[number].shape == expected.shape
        assert np.abs(made[number] - expected).max() < 1e-4


def test_logits_of_every_step_are_upstreams(engines: Pair) -> None:
    """Along one row of tokens, whatever a sampler would have drawn."""
    t3 = engines[0]._model.t3
    generator = torch.Generator().manual_seed(1)
    prompt = torch.randn(1, 30, t3.dim, generator=generator)
    tokens = torch.randint(0, 6561, (12,), generator=generator)
    ours = Gpt2(t3, rows=3, length=64)
    with torch.inference_mode():
        past = DynamicCache(config=t3.tfmr.config)
        states = t3.tfmr(inputs_embeds=prompt, past_key_values=past, use_cache=True)[0][:, -1]
        mine = ours.forward(prompt[0], [Span(1, 0, 30)])[-1:]
        # Others, of other lengths, are under way in the rows beside it.
        ours.forward(torch.randn(7, t3.dim, generator=generator), [Span(0, 0, 7)])
        for step, position in zip(tokens, count(30), strict=False):
            expected, found = t3.speech_head(states), t3.speech_head(mine)
            assert (expected - found).abs().max() <= LOGITS_SHARE * (expected.max() - expected.min())
            embedded = t3.speech_emb(step[None])
            states = t3.tfmr(inputs_embeds=embedded[None], past_key_values=past, use_cache=True)[0][:, -1]
            beside = torch.randn(1, t3.dim, generator=generator)
            mine = ours.forward(torch.cat([beside, embedded]), [Span(0, position - 23, 1), Span(1, position, 1)])[1:]


def test_an_utterance_alone_and_among_others_is_the_same(engines: Pair) -> None:
    _, batched = engines
    alone = np.concatenate(list(begin(batched, TEXTS[1], BUILT_IN, 3)))
    seeds = [50, 3, 52, 53, 54, 55]
    begun = {number: partial(begin, batched, text, BUILT_IN, seeds[number]) for number, text in enumerate(TEXTS)}
    made = together(begun, random.Random(9))
    assert np.array_equal(made[1], alone)


def test_a_cancelled_utterance_frees_its_slot_and_leaves_the_others_alone(engines: Pair) -> None:
    _, batched = engines
    expected = np.concatenate(list(begin(batched, TEXTS[0], BUILT_IN, 1)))
    for _ in range(SLOTS + 1):
        leaving = begin(batched, TEXTS[1], BUILT_IN, 2, CountedCancellation(at=5))
        staying = begin(batched, TEXTS[0], BUILT_IN, 1)
        made: list[Samples] = []
        with pytest.raises(CancelledError):
            made += [next(staying) for _ in leaving]
        assert np.array_equal(np.concatenate([*made, *staying]), expected)
    assert len(batched._decoder._free) == SLOTS


def test_a_text_of_too_many_tokens_is_refused_and_takes_no_slot(engines: Pair) -> None:
    _, batched = engines
    before = np.concatenate(list(begin(batched, TEXTS[0], BUILT_IN, 1)))
    tokenizer = batched._model.tokenizer
    limit, tokenizer.model_max_length = tokenizer.model_max_length, 10**6
    try:
        for _ in range(SLOTS + 1):
            with pytest.raises(UnspeakableError, match=r"tokens, and .* fit into one utterance"):
                next(begin(batched, "\U0001f600" * 600 + " hello", BUILT_IN, 1, budget=1000))
    finally:
        tokenizer.model_max_length = limit
    assert len(batched._decoder._free) == SLOTS
    assert np.array_equal(np.concatenate(list(begin(batched, TEXTS[0], BUILT_IN, 1))), before)


def test_a_failure_while_joining_takes_no_slot(engines: Pair) -> None:
    _, batched = engines
    decoder = batched._decoder
    list(begin(batched, TEXTS[0], BUILT_IN, 1))
    sampler = Gpt2Sampler(
        seed=1, start=6561, stop=6562, budget=5, temperature=1.0, top_k=0, top_p=1.0, repetition_penalty=1.0
    )
    too_long = torch.zeros(decoder.length, dtype=torch.long)
    for _ in range(SLOTS + 1):
        with torch.inference_mode(), pytest.raises((RuntimeError, IndexError)):
            decoder.join(batched._prompts["default"], too_long, sampler)
    assert len(decoder._free) == SLOTS
    assert decoder._rows == []


def test_an_utterance_that_is_dropped_frees_its_slot(engines: Pair) -> None:
    _, batched = engines
    begun = begin(batched, TEXTS[1], BUILT_IN, 2)
    next(begun)
    begun.close()  # type: ignore[attr-defined]
    assert len(batched._decoder._free) == SLOTS


def test_a_prompt_is_computed_once_for_each_voice(engines: Pair, ada: VoiceSource) -> None:
    _, batched = engines
    for source in (BUILT_IN, ada):
        list(begin(batched, TEXTS[0], source, 1))
    before = dict(batched._prompts)
    for source in (BUILT_IN, ada):
        list(begin(batched, TEXTS[4], source, 2))
    assert all(batched._prompts[name] is positions for name, positions in before.items())
    batched.prepare(ada)
    assert ada.voice.name not in batched._prompts


def test_the_memory_of_a_slot_is_as_stated(engines: Pair) -> None:
    _, batched = engines
    decoder = batched._decoder
    config = batched._model.t3.tfmr.config
    assert decoder.bytes_a_slot == 2 * 4 * config.n_layer * config.n_embd * decoder.length


def test_a_directory_of_no_checkpoint_is_refused(tmp_path: Path) -> None:
    from worker.engines import load
    from worker.engines.base import ModelUnavailableError

    with pytest.raises(ModelUnavailableError, match="one utterance at a time"):
        load("hibari", threads=1, slots=2, model_dir=None, cache=tmp_path)
