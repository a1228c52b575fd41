"""T3's batched decoder on tiny checkpoints draws what upstream's own loops draw, whatever other utterances do."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.precisions import precision_params
from tests.support.stock import StockEngine, start
from tests.support.tiny_models import TinyCheckpoint
from tests.support.upstream import conditionals, decode, text_of
from worker.engines.base import UnspeakableError
from worker.engines.chatterbox.t3.alignment_guard import AlignmentGuard
from worker.engines.chatterbox.t3.decoder import MAX_START_POSITIONS, PREFILL_CHUNK, Decoder, Sequence, VoicePrefix
from worker.engines.chatterbox.t3.sampling import STOP, ForcedTokens, Gpt2Sampler, LlamaSampler, Sampler
from worker.precision import Precision

SLOTS = 16
BUDGET = 12
LENGTH = 448

LOGITS_TOLERANCE = 1e-3
"""Largest allowed difference of a logit from upstream's, as a share of the logits' range."""
REDUCED_TOLERANCES = {Precision.BF16: 0.02, Precision.INT8: 0.05}
"""The same in reduced precision, for models as small as these. A defect would differ by far more."""

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
"""By whether T3 is a GPT-2."""


@dataclass
class Subject:
    """One model in upstream's engine and in the batched decoder."""

    stock: StockEngine
    decoder: Decoder
    prefix: VoicePrefix

    @property
    def gpt2(self) -> bool:
        return bool(self.stock.loaded.upstream.t3.is_gpt)

    def sampler(self, prefix: VoicePrefix, text: Tensor, *, seed: int, budget: int = BUDGET, **own: Any) -> Sampler:
        if self.gpt2:
            return Gpt2Sampler(seed=seed, budget=budget, **GPT2 | own)
        guarded = self.stock.loaded.variant.guarded
        guard = AlignmentGuard(start=prefix.count, text=len(text), stop=STOP) if guarded else None
        return LlamaSampler(seed=seed, budget=budget, guard=guard, **LLAMA | own)

    def add(
        self,
        text: Tensor,
        *,
        seed: int,
        exaggeration: float | None = None,
        prefix: VoicePrefix | None = None,
        **own: Any,
    ) -> Sequence:
        if exaggeration is not None:
            prefix = self.decoder.embed_voice(conditionals(self.stock, exaggeration))
        prefix = prefix or self.prefix
        with torch.inference_mode():
            return self.decoder.add(prefix, text, self.sampler(prefix, text, seed=seed, **own))

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
        decoder = Decoder(stock.loaded.upstream.t3, **{"slots": SLOTS, "length": LENGTH} | options)
        prefix = decoder.embed_voice(conditionals(stock))
        decoder.compute_prefix(prefix)
    return Subject(stock, decoder, prefix)


@pytest.fixture(autouse=True)
def all_slots_are_free_afterwards(subject: Subject) -> Iterator[None]:
    yield
    assert subject.decoder.free_slots == SLOTS
    assert subject.decoder.idle


def advance(subject: Subject, sequence: Sequence) -> bool:
    """Take an utterance a step further, or finish it; returns whether it was still unfinished."""
    if not sequence.sampler.finished:
        with torch.inference_mode():
            subject.decoder.advance(sequence)
        return True
    subject.decoder.finish(sequence)
    return False


def run_to_end(subject: Subject, *sequences: Sequence) -> None:
    under_way = list(sequences)
    while under_way:
        under_way = [sequence for sequence in under_way if advance(subject, sequence)]


def without_stop(sequence: Sequence) -> list[int]:
    """The tokens without the stop token."""
    tokens = sequence.sampler.tokens
    return tokens[:-1] if tokens[-1:] == [STOP] else tokens


@contextmanager
def positions(subject: Subject) -> Iterator[list[int]]:
    """A list that records the number of new positions of each pass through the layers."""
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


# Equality with upstream


def test_the_same_seeds_draw_upstreams_tokens(subject: Subject) -> None:
    for number, own in enumerate(SETTINGS[subject.gpt2]):
        usual = GPT2 if subject.gpt2 else LLAMA
        for length, seed in ((7, 10 + number), (90, 20 + number)):
            text = subject.text(length, seed)
            expected = decode(subject.stock, text, seed=seed, budget=BUDGET, **usual | own)
            sequence = subject.add(text, seed=seed, **own)
            run_to_end(subject, sequence)
            assert without_stop(sequence) == expected.tokens, own


def test_what_has_no_text_is_computed_once_for_all_texts(subject: Subject) -> None:
    prefix = subject.decoder.embed_voice(conditionals(subject.stock))
    with torch.inference_mode():
        subject.decoder.compute_prefix(prefix)
    for length, known in ((50, 0), (80, 50), (60, 80)):
        text = subject.text(length, length)
        expected = decode(subject.stock, text, seed=length, budget=BUDGET, **GPT2 if subject.gpt2 else LLAMA)
        sequence = subject.add(text, seed=length, prefix=prefix)
        assert prefix.known == (0 if subject.gpt2 else known)
        with positions(subject) as passes:
            while not sequence.sampler.tokens:
                advance(subject, sequence)
        assert sum(passes) == (length + 1 if subject.gpt2 else 2 * (length + 2) - min(known, length))
        run_to_end(subject, sequence)
        assert without_stop(sequence) == expected.tokens


def test_logits_of_every_step_are_upstreams(subject: Subject) -> None:
    """Teacher-forced with upstream's tokens, while utterances of other lengths are decoded."""
    usual = GPT2 if subject.gpt2 else LLAMA
    text = subject.text(80)
    expected = decode(subject.stock, text, seed=3, budget=BUDGET, **usual)
    others = [subject.add(subject.text(length, length), seed=length, budget=40) for length in (7, 150)]
    with torch.inference_mode():
        # Where upstream computed logits after its last token, they get one more token, whose value does not matter.
        forced = ForcedTokens([*expected.tokens, 0][: len(expected.logits)])
        sequence = subject.decoder.add(subject.prefix, text, forced)
    while not forced.finished:
        for one in (sequence, *others):
            with torch.inference_mode():
                subject.decoder.advance(one)
    for one in (sequence, *others):
        subject.decoder.finish(one)
    assert len(forced.logits) >= BUDGET
    for step, found in enumerate(forced.logits):
        logits = expected.logits[step]
        assert (logits - found).abs().max() <= LOGITS_TOLERANCE * (logits.max() - logits.min())


@pytest.mark.parametrize("precision", precision_params(REDUCED_TOLERANCES))
def test_reduced_precision_stays_within_its_tolerance(subject: Subject, precision: Precision) -> None:
    text, tokens = subject.text(40), list(range(100, 110))
    reduced = built(subject.stock, slots=1, precision=precision)
    with torch.inference_mode():
        exact = subject.decoder.forced_logits(subject.prefix, text, tokens)
        found = reduced.decoder.forced_logits(reduced.prefix, text, tokens)
    assert exact.shape == (
        len(tokens),
        1 if subject.gpt2 else 2,
        subject.stock.loaded.upstream.t3.hp.speech_tokens_dict_size,
    )
    assert 0 < (exact - found).abs().max() <= REDUCED_TOLERANCES[precision] * (exact.max() - exact.min())


def test_it_ends_where_upstream_ends(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a head that now and then draws the stop token: those of the tiny checkpoints never do."""
    # The text is so short that the guard allows an end anywhere, the temperature so low that tokens repeat.
    text = subject.text(6)
    cold: dict[str, Any] = {"temperature": 0.2}
    usual = GPT2 if subject.gpt2 else LLAMA
    t3 = subject.stock.loaded.upstream.t3
    often = subject.add(text, seed=1, **cold)
    run_to_end(subject, often)
    head = nn.Linear(*reversed(t3.speech_head.weight.shape), bias=t3.speech_head.bias is not None).requires_grad_(False)
    head.load_state_dict(t3.speech_head.state_dict())
    with torch.no_grad():
        head.weight[STOP] = 1.1 * head.weight[without_stop(often)[3]]
    monkeypatch.setattr(t3, "speech_head", head)
    ending = built(subject.stock, slots=1)
    ended = 0
    for seed in range(1, 5):
        expected = decode(subject.stock, text, seed=seed, budget=BUDGET, **usual | cold)
        sequence = ending.add(text, seed=seed, **cold)
        run_to_end(ending, sequence)
        assert without_stop(sequence) == expected.tokens
        assert sequence.sampler.cut_short == (sequence.sampler.tokens[-1] != STOP)
        ended += not sequence.sampler.cut_short
    # With a guard, the end also depends on the alignment: see `test_alignment_guard`.
    assert ended or subject.stock.loaded.variant.guarded


# Other utterances in the batch


def test_an_utterance_alone_and_among_15_others_draws_the_same(subject: Subject) -> None:
    order = random.Random(4)
    settings = SETTINGS[subject.gpt2]
    jobs = [
        (subject.text(order.choice((6, 20, 70)), number), number, settings[number % len(settings)])
        for number in range(SLOTS + 4)
    ]
    alone = []
    for text, seed, own in jobs[::4]:
        sequence = subject.add(text, seed=seed, **own)
        run_to_end(subject, sequence)
        alone.append(sequence.sampler.tokens)
    waiting, running, done = list(jobs), [], {}  # type: ignore[var-annotated]
    most = 0
    while waiting or running:
        while waiting and len(running) < SLOTS and (len(running) < 2 or order.random() < 0.8):
            text, seed, own = waiting.pop(0)
            sequence = subject.add(text, seed=seed, budget=BUDGET, **own)
            done[seed] = sequence.sampler.tokens
            running.append(sequence)
        most = max(most, len(running))
        running = [sequence for sequence in order.sample(running, len(running)) if advance(subject, sequence)]
    assert most == SLOTS
    assert [done[seed] for _, seed, _ in jobs[::4]] == alone


def test_long_texts_are_prefilled_in_chunks_while_other_utterances_go_on(subject: Subject) -> None:
    going = subject.add(subject.text(6), seed=1, budget=40)
    while len(going.sampler.tokens) < 3:
        advance(subject, going)
    text = subject.text(200)
    known = subject.prefix.known
    long = subject.add(text, seed=2)
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
    assert max(passes) == PREFILL_CHUNK + each
    assert sum(passes) == each * (len(text) + start + step) - known
    run_to_end(subject, going, long)


def test_a_voice_prefix_is_computed_in_chunks_and_once_for_all_its_utterances(subject: Subject) -> None:
    texts = [subject.text(30, number) for number in range(2)]
    expected = []
    for seed, text in enumerate(texts):
        sequence = subject.add(text, seed=seed)
        run_to_end(subject, sequence)
        expected.append(sequence.sampler.tokens)
    prefix = subject.decoder.embed_voice(conditionals(subject.stock))
    sequences = [subject.add(text, seed=seed, prefix=prefix) for seed, text in enumerate(texts)]
    with positions(subject) as passes:
        while not all(sequence.sampler.tokens for sequence in sequences):
            for sequence in sequences:
                advance(subject, sequence)
    assert max(passes) <= PREFILL_CHUNK + 2 * len(sequences[0].rows)
    assert sum(passes) < prefix.count + 2 * len(sequences[0].rows) * 40
    run_to_end(subject, *sequences)
    assert [sequence.sampler.tokens for sequence in sequences] == expected


def test_an_utterance_may_be_finished_before_its_voice_prefix_is_computed(subject: Subject) -> None:
    text = subject.text(9)
    usual = subject.add(text, seed=5)
    run_to_end(subject, usual)
    prefix = subject.decoder.embed_voice(conditionals(subject.stock))
    first, second = (subject.add(text, seed=seed, prefix=prefix) for seed in (4, 5))
    advance(subject, first)
    subject.decoder.finish(first)
    run_to_end(subject, second)
    assert second.sampler.tokens == usual.sampler.tokens


def test_finishing_an_utterance_at_any_step_changes_no_other(subject: Subject) -> None:
    text = subject.text(100)
    staying = subject.add(text, seed=1)
    run_to_end(subject, staying)
    for steps in (0, 1, 3):
        leaving = subject.add(subject.text(100, 1), seed=2)
        again = subject.add(text, seed=1)
        for _ in range(steps):
            for sequence in (leaving, again):
                advance(subject, sequence)
        subject.decoder.finish(leaving)
        run_to_end(subject, again)
        assert again.sampler.tokens == staying.sampler.tokens


# Failures


def test_a_voice_with_nan_fails_only_its_own_utterance(subject: Subject) -> None:
    text = subject.text(6)
    usual = subject.add(text, seed=1)
    run_to_end(subject, usual)
    spoilt = conditionals(subject.stock)
    spoilt.speaker_emb = torch.full_like(spoilt.speaker_emb, torch.nan)
    failing = subject.add(text, seed=1, prefix=subject.decoder.embed_voice(spoilt))
    beside = subject.add(text, seed=1, budget=40)
    with pytest.raises(RuntimeError, match="nan"):
        run_to_end(subject, beside, failing)
    subject.decoder.finish(failing)
    run_to_end(subject, beside)
    assert beside.sampler.tokens[: len(usual.sampler.tokens)] == usual.sampler.tokens


def test_a_text_that_does_not_fit_takes_no_slot(subject: Subject) -> None:
    most = BUDGET + 1 if subject.gpt2 else BUDGET
    room = LENGTH - MAX_START_POSITIONS - (most - 1)
    for _ in range(SLOTS + 1):
        with pytest.raises(UnspeakableError, match=f"the text has {room + 1} tokens, and {room} fit"):
            subject.add(subject.text(room + 1), seed=1)
    fitting = subject.add(subject.text(room), seed=1)
    run_to_end(subject, fitting)
    assert len(fitting.sampler.tokens) == most


def test_a_failure_while_adding_takes_no_slot(subject: Subject) -> None:
    unknown = torch.tensor([10**6])
    for _ in range(SLOTS + 1):
        with pytest.raises(IndexError):
            subject.add(unknown, seed=1)
    assert subject.decoder._sequences == []


def test_the_memory_of_a_slot_is_as_stated(subject: Subject) -> None:
    t3, decoder = subject.stock.loaded.upstream.t3, subject.decoder
    rows, layers = (1, t3.cfg.n_layer) if subject.gpt2 else (2, t3.cfg.num_hidden_layers)
    width = t3.dim if subject.gpt2 else t3.cfg.num_attention_heads * t3.cfg.head_dim
    assert decoder.bytes_per_slot == rows * 2 * 4 * layers * width * LENGTH
