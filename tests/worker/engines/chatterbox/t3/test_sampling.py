"""Samplers: how tokens are drawn, when an utterance ends, which tokens S3Gen gets.

`test_decoder` compares whole utterances with upstream.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.stock import BUILT_IN  # noqa: F401 - loads the engines' libraries, which warn when they load
from worker.engines.chatterbox.t3.sampling import (
    START,
    STOP,
    ForcedTokens,
    Gpt2Sampler,
    LlamaSampler,
    Sampler,
    classifier_free_guidance,
)

SILENCE = 4299
VOCABULARY = 6563
PLAIN: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0}


def gpt2(budget: int = 5, *, seed: int = 1, **own: Any) -> Gpt2Sampler:
    return Gpt2Sampler(seed=seed, budget=budget, **PLAIN | {"top_k": 0} | own)


def llama(budget: int = 5, *, seed: int = 1, **own: Any) -> LlamaSampler:
    return LlamaSampler(seed=seed, budget=budget, **PLAIN | {"cfg_weight": 0.5, "min_p": 0.0} | own)


def only(*tokens: int, rows: int = 1) -> Tensor:
    """Logits by which only the given tokens can be drawn."""
    logits = torch.full((rows, VOCABULARY), -1e4)
    logits[:, list(tokens)] = 1e4
    return logits


def draw_all(sampler: Sampler, *tokens: int) -> Sampler:
    rows = 2 if isinstance(sampler, LlamaSampler) else 1
    for token in tokens:
        assert not sampler.finished
        sampler.draw(only(token, rows=rows))
    return sampler


def test_turbo_draws_one_more_than_its_budget() -> None:
    sampler = draw_all(gpt2(budget=3), 5, 6, 7, 8)
    assert sampler.finished
    assert sampler.cut_short
    assert sampler.tokens == [5, 6, 7, 8]
    assert sampler.max_tokens == 4


def test_the_original_draws_its_budget() -> None:
    sampler = draw_all(llama(budget=3), 5, 6, 7)
    assert sampler.finished
    assert sampler.cut_short
    assert sampler.max_tokens == 3


def test_the_stop_ends_an_utterance() -> None:
    for sampler in (draw_all(gpt2(), 5, STOP), draw_all(llama(), 5, STOP), draw_all(llama(), STOP)):
        assert sampler.finished
        assert not sampler.cut_short


def test_turbo_ignores_a_stop_as_its_first_token() -> None:
    sampler = draw_all(gpt2(), STOP, 5, 6, STOP)
    assert sampler.finished
    assert sampler.s3gen_tokens == [5, 6, SILENCE, SILENCE, SILENCE]


def test_a_stop_with_the_last_of_the_budget_is_not_cut_short() -> None:
    assert not draw_all(gpt2(budget=1), 5, STOP).cut_short
    assert not draw_all(llama(budget=2), 5, STOP).cut_short


def test_tokens_without_sound_are_not_passed_to_s3gen() -> None:
    assert draw_all(gpt2(), 5, START, 6, STOP).s3gen_tokens == [5, 6, SILENCE, SILENCE, SILENCE]
    assert draw_all(llama(), 5, 6, STOP).s3gen_tokens == [5, 6]
    assert draw_all(llama(), 5, START, 6, STOP).s3gen_tokens == [6]
    assert draw_all(llama(), STOP).s3gen_tokens == []


def test_a_start_token_after_a_first_piece_leaves_nothing_out() -> None:
    late = draw_all(llama(), 5, 6, START, 7, STOP)
    assert late.s3gen_tokens == [7]
    assert late.s3gen_tokens_after([5, 6]) == [5, 6, 7]
    early = draw_all(llama(), 5, START, 6, 7, STOP)
    assert early.s3gen_tokens_after([6]) == early.s3gen_tokens == [6, 7]
    turbo = draw_all(gpt2(), 5, 6, STOP)
    assert turbo.s3gen_tokens_after([5]) == turbo.s3gen_tokens


def test_turbo_ends_where_no_token_is_left() -> None:
    sampler = draw_all(gpt2(), 5)
    sampler.draw(torch.full((1, VOCABULARY), -torch.inf))
    assert sampler.finished
    assert not sampler.cut_short
    assert sampler.tokens == [5]


def test_logits_with_nan_are_refused() -> None:
    for sampler, rows in ((gpt2(), 1), (llama(), 2)):
        with pytest.raises(RuntimeError, match="nan"):
            sampler.draw(torch.full((rows, VOCABULARY), torch.nan))


def test_each_sampler_has_its_own_generator() -> None:
    """Draws of another sampler, and torch's global generator, change nothing."""
    logits = torch.randn(8, 2, VOCABULARY, generator=torch.Generator().manual_seed(0))
    alone, among, other = llama(8, seed=3), llama(8, seed=3), llama(8, seed=4)
    state = torch.get_rng_state()
    for one in logits:
        alone.draw(one)
    for one in logits:
        among.draw(one)
        other.draw(one)
    assert among.tokens == alone.tokens != other.tokens
    assert torch.equal(torch.get_rng_state(), state)


def test_the_repetition_penalty_makes_drawn_tokens_less_likely() -> None:
    logits = only(7, 8) / 1e4
    favoured = logits.clone()
    favoured[0, 7] += 3
    sampler = gpt2(40, repetition_penalty=3.0, top_k=2)
    for _ in range(40):
        sampler.draw(favoured)
    assert 8 in sampler.tokens
    assert START not in sampler.tokens


@pytest.mark.parametrize(
    ("own", "usual"), [({"top_p": 1.0}, {"top_p": 0.999_999_9}), ({"min_p": 0.0}, {"min_p": 1e-12})]
)
def test_warpers_that_are_left_out_would_change_nothing(own: dict[str, Any], usual: dict[str, Any]) -> None:
    logits = 3 * torch.randn(50, 2, VOCABULARY, generator=torch.Generator().manual_seed(5))
    without, with_it = llama(50, **own), llama(50, **usual)
    for one in logits:
        without.draw(one)
        with_it.draw(one)
    assert without.tokens == with_it.tokens


def test_guidance_moves_logits_away_from_those_without_the_text() -> None:
    logits = torch.tensor([[[1.0, 2.0, 3.0], [1.0, 1.0, 5.0]]])
    assert classifier_free_guidance(logits, 0.5).tolist() == [[1.0, 2.5, 2.0]]
    assert torch.equal(classifier_free_guidance(logits, 0.0), logits[:, 0])


def test_forced_tokens_record_the_logits_of_every_step() -> None:
    sampler = ForcedTokens([5, STOP, 7])
    steps = torch.randn(3, 2, VOCABULARY)
    for number, one in enumerate(steps):
        assert sampler.finished == (number == 3)
        sampler.draw(one)
    assert sampler.finished
    assert sampler.tokens == [5, STOP, 7]
    assert torch.equal(torch.stack(sampler.logits), steps)
