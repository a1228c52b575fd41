"""TopKTopPWarper keeps exactly the tokens that transformers' two warpers keep."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from transformers.generation.logits_process import LogitsProcessorList, TopKLogitsWarper, TopPLogitsWarper

from worker.engines.chatterbox.t3.top_k_top_p import TopKTopPWarper

NO_HISTORY = torch.zeros(1, 0, dtype=torch.long)


def reference(top_k: int, top_p: float) -> Any:
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
def test_it_keeps_what_transformers_keep(
    seed: int, count: int, spread: float, ties: bool, top_k: int, top_p: float
) -> None:
    scores = spread * torch.randn(1, count, generator=torch.Generator().manual_seed(seed))
    if ties:
        scores = scores.round()
    expected = reference(top_k, top_p)(NO_HISTORY, scores)
    assert torch.equal(TopKTopPWarper(top_k=top_k, top_p=top_p)(NO_HISTORY, scores), expected)


@pytest.mark.parametrize(("top_k", "top_p"), [(3, 1.0), (0, 0.5), (3, 0.5)])
def test_its_input_is_not_modified(top_k: int, top_p: float) -> None:
    scores = torch.randn(1, 9)
    before = scores.clone()
    warped = TopKTopPWarper(top_k=top_k, top_p=top_p)(NO_HISTORY, scores)
    assert torch.equal(scores, before)
    assert (warped == -torch.inf).any()
