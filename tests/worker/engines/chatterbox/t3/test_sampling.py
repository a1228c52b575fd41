"""How tokens are drawn from logits: when it ends, and what is spoken. See `test_chatterbox_decoder` for upstream's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.stock import BUILT_IN  # noqa: F401 - loads the engines' libraries, which warn when they load
from worker.engines.chatterbox.t3.sampling import START, STOP, Dictated, Gpt2Sampler, LlamaSampler, Sampler, guided

SILENCE = 4299
VOCABULARY = 6563
PLAIN: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0}


def gpt2(budget: int = 5, *, seed: int = 1, **own: Any) -> Gpt2Sampler:
    return Gpt2Sampler(seed=seed, budget=budget, **PLAIN | {"top_k": 0} | own)


def llama(budget: int = 5, *, seed: int = 1, **own: Any) -> LlamaSampler:
    return LlamaSampler(seed=seed, budget=budget, **PLAIN | {"cfg_weight": 0.5, "min_p": 0.0} | own)


def only(*tokens: int, rows: int = 1) -> Tensor:
    """Logits that leave but these."""
    logits = torch.full((rows, VOCABULARY), -1e4)
    logits[:, list(tokens)] = 1e4
    return logits


def tell(sampler: Sampler, *tokens: int) -> Sampler:
    rows = 2 if isinstance(sampler, LlamaSampler) else 1
    for token in tokens:
        assert not sampler.finished
        sampler.draw(only(token, rows=rows))
    return sampler


def test_turbo_draws_one_more_than_its_budget() -> None:
    sampler = tell(gpt2(budget=3), 5, 6, 7, 8)
    assert sampler.finished
    assert sampler.cut_short
    assert sampler.tokens == [5, 6, 7, 8]
    assert sampler.most == 4


def test_the_original_draws_its_budget() -> None:
    sampler = tell(llama(budget=3), 5, 6, 7)
    assert sampler.finished
    assert sampler.cut_short
    assert sampler.most == 3


def test_the_stop_ends_an_utterance() -> None:
    for made in (tell(gpt2(), 5, STOP), tell(llama(), 5, STOP), tell(llama(), STOP)):
        assert made.finished
        assert not made.cut_short


def test_turbo_does_not_look_at_its_first_token() -> None:
    sampler = tell(gpt2(), STOP, 5, 6, STOP)
    assert sampler.finished
    assert sampler.spoken == [5, 6, SILENCE, SILENCE, SILENCE]


def test_a_stop_with_the_last_of_the_budget_is_not_cut_short() -> None:
    assert not tell(gpt2(budget=1), 5, STOP).cut_short
    assert not tell(llama(budget=2), 5, STOP).cut_short


def test_what_has_no_sound_is_not_spoken() -> None:
    assert tell(gpt2(), 5, START, 6, STOP).spoken == [5, 6, SILENCE, SILENCE, SILENCE]
    assert tell(llama(), 5, 6, STOP).spoken == [5, 6]
    assert tell(llama(), 5, START, 6, STOP).spoken == [6]
    assert tell(llama(), STOP).spoken == []


def test_turbo_ends_where_no_token_is_left() -> None:
    sampler = tell(gpt2(), 5)
    sampler.draw(torch.full((1, VOCABULARY), -torch.inf))
    assert sampler.finished
    assert not sampler.cut_short
    assert sampler.tokens == [5]


def test_logits_that_are_no_numbers_are_refused() -> None:
    for sampler, rows in ((gpt2(), 1), (llama(), 2)):
        with pytest.raises(RuntimeError, match="nan"):
            sampler.draw(torch.full((rows, VOCABULARY), torch.nan))


def test_each_draws_with_a_generator_of_its_own() -> None:
    """Another's draws in between, and torch's own generator, change nothing."""
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


def test_what_was_drawn_is_less_likely_again() -> None:
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
def test_what_is_left_out_would_have_changed_nothing(own: dict[str, Any], usual: dict[str, Any]) -> None:
    logits = 3 * torch.randn(50, 2, VOCABULARY, generator=torch.Generator().manual_seed(5))
    without, with_it = llama(50, **own), llama(50, **usual)
    for one in logits:
        without.draw(one)
        with_it.draw(one)
    assert without.tokens == with_it.tokens


def test_guidance_leads_away_from_what_would_be_said_without_the_text() -> None:
    logits = torch.tensor([[[1.0, 2.0, 3.0], [1.0, 1.0, 5.0]]])
    assert guided(logits, 0.5).tolist() == [[1.0, 2.5, 2.0]]
    assert torch.equal(guided(logits, 0.0), logits[:, 0])


def test_a_dictated_utterance_keeps_what_led_to_each_token() -> None:
    sampler = Dictated([5, STOP, 7])
    steps = torch.randn(3, 2, VOCABULARY)
    for number, one in enumerate(steps):
        assert sampler.finished == (number == 3)
        sampler.draw(one)
    assert sampler.finished
    assert sampler.tokens == [5, STOP, 7]
    assert torch.equal(torch.stack(sampler.seen), steps)
