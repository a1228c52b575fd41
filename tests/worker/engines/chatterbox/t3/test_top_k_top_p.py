"""One sort leaves what upstream's two processors leave."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from transformers.generation.logits_process import LogitsProcessorList, TopKLogitsWarper, TopPLogitsWarper

from worker.engines.chatterbox.t3.top_k_top_p import Likeliest

NOBODY = torch.zeros(1, 0, dtype=torch.long)


def upstreams(top_k: int, top_p: float) -> Any:
    processors = LogitsProcessorList()
    if top_k > 0:
        processors.append(TopKLogitsWarper(top_k))
    if top_p < 1.0:
        processors.append(TopPLogitsWarper(top_p))
    return processors


@given(
    seed=some.integers(0, 10**6),
    count=some.sampled_from([1, 2, 50, 6563]),
    spread=some.sampled_from([0.0, 0.1, 3.0, 300.0]),
    ties=some.booleans(),
    top_k=some.sampled_from([0, 1, 2, 40, 1000, 6563, 10_000]),
    top_p=some.one_of(some.sampled_from([0.01, 0.5, 0.95, 1.0]), some.floats(0.01, 1.0)),
)
def test_it_leaves_what_upstream_leaves(
    seed: int, count: int, spread: float, ties: bool, top_k: int, top_p: float
) -> None:
    scores = spread * torch.randn(1, count, generator=torch.Generator().manual_seed(seed))
    if ties:
        scores = scores.round()
    expected = upstreams(top_k, top_p)(NOBODY, scores)
    assert torch.equal(Likeliest(top_k=top_k, top_p=top_p)(NOBODY, scores), expected)


@pytest.mark.parametrize(("top_k", "top_p"), [(3, 1.0), (0, 0.5), (3, 0.5)])
def test_what_it_is_given_is_left_alone(top_k: int, top_p: float) -> None:
    scores = torch.randn(1, 9)
    before = scores.clone()
    left = Likeliest(top_k=top_k, top_p=top_p)(NOBODY, scores)
    assert torch.equal(scores, before)
    assert (left == -torch.inf).any()
