"""The decoder of tokens on tiny checkpoints: what upstream's own loops draw, whoever else joins and leaves."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.stock import StockEngine, start
from tests.support.tiny_models import TinyCheckpoint
from tests.support.upstream import conditionals, decode, text_of
from worker.engines.base import UnspeakableError
from worker.engines.chatterbox.t3.alignment_guard import Guard
from worker.engines.chatterbox.t3.decoder import CHUNK, MOST_STARTS, Decoder, Prefix, Row
from worker.engines.chatterbox.t3.sampling import STOP, Dictated, Gpt2Sampler, LlamaSampler, Sampler
from worker.precision import Precision

SLOTS = 16
BUDGET = 12
LENGTH = 448

LOGITS_SHARE = 1e-3
"""Most that logits may differ from upstream's, as a share of their range."""
SHARES = {Precision.BF16: 0.02, Precision.INT8: 0.05}
"""The same in less than full precision, for models as small as these: a slip would show as far more."""

GPT2: dict[str, Any] = {"temperature": 0.8, "top_k": 1000, "top_p": 0.95, "repetition_penalty": 1.2}
LLAMA: dict[str, Any] = {
    "temperature": 0.8, "min_p": 0.05, "top_p": 1.0, "repetition_penalty": 1.2, "cfg_weight": 0.5,
}  # fmt: skip
SETTINGS: dict[bool, list[dict[str, Any]]] = {
    True: [
        {},
        {"temperature": 1.0, "top_p": 1.0},
        {"top_k": 0, "repetition_penalty": 1.0},
        {"top_k": 5, "repetition_penalty": 2.0},
        {"temperature": 0.05, "repetition_penalty": 1.0},
        {"temperature": 3.0, "top_p": 0.5},
    ],
    False: [
        {},
        {"temperature": 1.0, "top_p": 0.8, "min_p": 0.0},
        {"cfg_weight": 1e-6, "repetition_penalty": 1.0, "min_p": 0.3},
        {"cfg_weight": 2.0, "exaggeration": 1.5, "repetition_penalty": 2.0},
        {"temperature": 0.05, "repetition_penalty": 1.0},
        {"temperature": 3.0, "min_p": 0.0, "exaggeration": 0.0},
    ],
}
"""By whether the model is a GPT-2."""


@dataclass
class Subject:
    """One model, upstream's and ours."""

    stock: StockEngine
    decoder: Decoder
    prefix: Prefix

    @property
    def gpt2(self) -> bool:
        return bool(self.stock._model.t3.is_gpt)

    def sampler(self, prefix: Prefix, text: Tensor, *, seed: int, budget: int = BUDGET, **own: Any) -> Sampler:
        if self.gpt2:
            return Gpt2Sampler(seed=seed, budget=budget, **GPT2 | own)
        guarded = self.stock._member.guarded
        guard = Guard(start=prefix.count, text=len(text), stop=STOP) if guarded else None
        return LlamaSampler(seed=seed, budget=budget, guard=guard, **LLAMA | own)

    def join(
        self, text: Tensor, *, seed: int, exaggeration: float | None = None, prefix: Prefix | None = None, **own: Any
    ) -> Row:
        if exaggeration is not None:
            prefix = self.decoder.prefix(conditionals(self.stock, exaggeration))
        prefix = prefix or self.prefix
        with torch.inference_mode():
            return self.decoder.join(prefix, text, self.sampler(prefix, text, seed=seed, **own))

    def text(self, length: int, seed: int = 0) -> Tensor:
        return text_of(self.stock, length, seed=seed)


@pytest.fixture(scope="module", params=["turbo", "nano", "chatterbox", "multilingual"])
def subject(
    request: pytest.FixtureRequest, tiny_checkpoint: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> Subject:
    stock = start(request.param, tiny_checkpoint(request.param), tmp_path_factory.mktemp("cache"))
    return built(stock)


def built(stock: StockEngine, **options: Any) -> Subject:
    with torch.inference_mode():
        decoder = Decoder(stock._model.t3, **{"slots": SLOTS, "length": LENGTH} | options)
        prefix = decoder.prefix(conditionals(stock))
        decoder.compute(prefix)
    return Subject(stock, decoder, prefix)


@pytest.fixture(autouse=True)
def all_slots_are_free_afterwards(subject: Subject) -> Iterator[None]:
    yield
    assert len(subject.decoder._free) == SLOTS
    assert subject.decoder.idle


def advance(subject: Subject, row: Row) -> bool:
    """Take an utterance a step further; whether it goes on."""
    if not row.sampler.finished:
        with torch.inference_mode():
            subject.decoder.advance(row)
        return True
    subject.decoder.leave(row)
    return False


def finish(subject: Subject, *rows: Row) -> None:
    under_way: Sequence[Row] = rows
    while under_way:
        under_way = [row for row in under_way if advance(subject, row)]


def spoken(row: Row) -> list[int]:
    """The tokens without the one that ended them."""
    tokens = row.sampler.tokens
    return tokens[:-1] if tokens[-1:] == [STOP] else tokens


@contextmanager
def positions(subject: Subject) -> Iterator[list[int]]:
    """How many new positions each pass through the layers has."""
    backbone: Any = subject.decoder._backbone
    counts: list[int] = []

    def forward(new: Tensor, *rest: Any) -> Any:
        counts.append(len(new))
        return type(backbone).forward(backbone, new, *rest)

    backbone.forward = forward
    try:
        yield counts
    finally:
        del backbone.forward


# What upstream decodes


def test_the_same_seeds_draw_upstreams_tokens(subject: Subject) -> None:
    for number, own in enumerate(SETTINGS[subject.gpt2]):
        usual = GPT2 if subject.gpt2 else LLAMA
        for length, seed in ((7, 10 + number), (90, 20 + number)):
            text = subject.text(length, seed)
            expected = decode(subject.stock, text, seed=seed, budget=BUDGET, **usual | own)
            row = subject.join(text, seed=seed, **own)
            finish(subject, row)
            assert spoken(row) == expected.tokens, own


def test_logits_of_every_step_are_upstreams(subject: Subject) -> None:
    """Along upstream's tokens, while others, of other lengths, are under way."""
    usual = GPT2 if subject.gpt2 else LLAMA
    text = subject.text(80)
    expected = decode(subject.stock, text, seed=3, budget=BUDGET, **usual)
    others = [subject.join(subject.text(length, length), seed=length, budget=40) for length in (7, 150)]
    with torch.inference_mode():
        # What follows the last token, if upstream took its logits, makes no difference to them.
        told = Dictated([*expected.tokens, 0][: len(expected.logits)])
        row = subject.decoder.join(subject.prefix, text, told)
    while not told.finished:
        for one in (row, *others):
            with torch.inference_mode():
                subject.decoder.advance(one)
    for one in (row, *others):
        subject.decoder.leave(one)
    assert len(told.seen) >= BUDGET
    for step, found in enumerate(told.seen):
        logits = expected.logits[step]
        assert (logits - found).abs().max() <= LOGITS_SHARE * (logits.max() - logits.min())


@pytest.mark.parametrize("precision", SHARES)
def test_less_precision_stays_near(subject: Subject, precision: Precision) -> None:
    text, tokens = subject.text(40), list(range(100, 110))
    lesser = built(subject.stock, slots=1, precision=precision)
    with torch.inference_mode():
        exact = subject.decoder.logits_along(subject.prefix, text, tokens)
        found = lesser.decoder.logits_along(lesser.prefix, text, tokens)
    assert exact.shape == (len(tokens), 1 if subject.gpt2 else 2, subject.stock._model.t3.hp.speech_tokens_dict_size)
    assert 0 < (exact - found).abs().max() <= SHARES[precision] * (exact.max() - exact.min())


def test_it_ends_where_upstream_ends(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a head that now and then says so: the checkpoints' own never do."""
    # So short that the guard lets it end anywhere, and so cold that the same tokens come again.
    text = subject.text(6)
    cold: dict[str, Any] = {"temperature": 0.2}
    usual = GPT2 if subject.gpt2 else LLAMA
    t3 = subject.stock._model.t3
    often = subject.join(text, seed=1, **cold)
    finish(subject, often)
    head = nn.Linear(*reversed(t3.speech_head.weight.shape), bias=t3.speech_head.bias is not None).requires_grad_(False)
    head.load_state_dict(t3.speech_head.state_dict())
    with torch.no_grad():
        head.weight[STOP] = 1.1 * head.weight[spoken(often)[3]]
    monkeypatch.setattr(t3, "speech_head", head)
    ending = built(subject.stock, slots=1)
    ended = 0
    for seed in range(1, 5):
        expected = decode(subject.stock, text, seed=seed, budget=BUDGET, **usual | cold)
        row = ending.join(text, seed=seed, **cold)
        finish(ending, row)
        assert spoken(row) == expected.tokens
        assert row.sampler.cut_short == (row.sampler.tokens[-1] != STOP)
        ended += not row.sampler.cut_short
    # Where in the text it may end is the guard's to say: see `test_chatterbox_alignment`.
    assert ended or subject.stock._member.guarded


# Whoever else is there


def test_an_utterance_alone_and_among_15_others_draws_the_same(subject: Subject) -> None:
    order = random.Random(4)
    settings = SETTINGS[subject.gpt2]
    jobs = [
        (subject.text(order.choice((6, 20, 70)), number), number, settings[number % len(settings)])
        for number in range(SLOTS + 4)
    ]
    alone = []
    for text, seed, own in jobs[::4]:
        row = subject.join(text, seed=seed, **own)
        finish(subject, row)
        alone.append(row.sampler.tokens)
    waiting, running, done = list(jobs), [], {}  # type: ignore[var-annotated]
    most = 0
    while waiting or running:
        while waiting and len(running) < SLOTS and (len(running) < 2 or order.random() < 0.8):
            text, seed, own = waiting.pop(0)
            row = subject.join(text, seed=seed, budget=BUDGET, **own)
            done[seed] = row.sampler.tokens
            running.append(row)
        most = max(most, len(running))
        running = [row for row in order.sample(running, len(running)) if advance(subject, row)]
    assert most == SLOTS
    assert [done[seed] for _, seed, _ in jobs[::4]] == alone


def test_long_texts_come_in_pieces_while_the_others_go_on(subject: Subject) -> None:
    going = subject.join(subject.text(6), seed=1, budget=40)
    while len(going.sampler.tokens) < 3:
        advance(subject, going)
    text = subject.text(200)
    long = subject.join(text, seed=2)
    each = len(long.rows)
    before = len(going.sampler.tokens)
    with positions(subject) as passes:
        for step in count(1):
            advance(subject, going)
            advance(subject, long)
            assert len(going.sampler.tokens) == before + step
            if long.sampler.tokens:
                break
    start = 1 if subject.gpt2 else 2
    assert max(passes) == CHUNK + each
    assert sum(passes) == each * (len(text) + start + step)
    finish(subject, going, long)


def test_a_voice_comes_in_pieces_and_once_for_all_that_wait_for_it(subject: Subject) -> None:
    texts = [subject.text(30, number) for number in range(2)]
    expected = []
    for seed, text in enumerate(texts):
        row = subject.join(text, seed=seed)
        finish(subject, row)
        expected.append(row.sampler.tokens)
    prefix = subject.decoder.prefix(conditionals(subject.stock))
    rows = [subject.join(text, seed=seed, prefix=prefix) for seed, text in enumerate(texts)]
    with positions(subject) as passes:
        while not all(row.sampler.tokens for row in rows):
            for row in rows:
                advance(subject, row)
    assert max(passes) <= CHUNK + 2 * len(rows[0].rows)
    assert sum(passes) < prefix.count + 2 * len(rows[0].rows) * 40
    finish(subject, *rows)
    assert [row.sampler.tokens for row in rows] == expected


def test_whoever_asked_for_a_voice_may_leave_before_it_is_there(subject: Subject) -> None:
    text = subject.text(9)
    usual = subject.join(text, seed=5)
    finish(subject, usual)
    prefix = subject.decoder.prefix(conditionals(subject.stock))
    first, second = (subject.join(text, seed=seed, prefix=prefix) for seed in (4, 5))
    advance(subject, first)
    subject.decoder.leave(first)
    finish(subject, second)
    assert second.sampler.tokens == usual.sampler.tokens


def test_leaving_at_any_time_disturbs_nobody(subject: Subject) -> None:
    text = subject.text(100)
    staying = subject.join(text, seed=1)
    finish(subject, staying)
    for steps in (0, 1, 3):
        leaving = subject.join(subject.text(100, 1), seed=2)
        again = subject.join(text, seed=1)
        for _ in range(steps):
            for row in (leaving, again):
                advance(subject, row)
        subject.decoder.leave(leaving)
        finish(subject, again)
        assert again.sampler.tokens == staying.sampler.tokens


# What goes wrong


def test_a_voice_that_holds_no_numbers_fails_its_own_utterance(subject: Subject) -> None:
    text = subject.text(6)
    usual = subject.join(text, seed=1)
    finish(subject, usual)
    spoilt = conditionals(subject.stock)
    spoilt.speaker_emb = torch.full_like(spoilt.speaker_emb, torch.nan)
    failing = subject.join(text, seed=1, prefix=subject.decoder.prefix(spoilt))
    beside = subject.join(text, seed=1, budget=40)
    with pytest.raises(RuntimeError, match="nan"):
        finish(subject, beside, failing)
    subject.decoder.leave(failing)
    finish(subject, beside)
    assert beside.sampler.tokens[: len(usual.sampler.tokens)] == usual.sampler.tokens


def test_a_text_that_does_not_fit_takes_no_slot(subject: Subject) -> None:
    most = BUDGET + 1 if subject.gpt2 else BUDGET
    room = LENGTH - MOST_STARTS - (most - 1)
    for _ in range(SLOTS + 1):
        with pytest.raises(UnspeakableError, match=f"the text has {room + 1} tokens, and {room} fit"):
            subject.join(subject.text(room + 1), seed=1)
    fitting = subject.join(subject.text(room), seed=1)
    finish(subject, fitting)
    assert len(fitting.sampler.tokens) == most


def test_a_failure_while_joining_takes_no_slot(subject: Subject) -> None:
    unknown = torch.tensor([10**6])
    for _ in range(SLOTS + 1):
        with pytest.raises(IndexError):
            subject.join(unknown, seed=1)
    assert subject.decoder._rows == []


def test_the_memory_of_a_slot_is_as_stated(subject: Subject) -> None:
    t3, decoder = subject.stock._model.t3, subject.decoder
    rows, layers = (1, t3.cfg.n_layer) if subject.gpt2 else (2, t3.cfg.num_hidden_layers)
    assert decoder.bytes_a_slot == rows * 2 * 4 * layers * t3.dim * LENGTH
