"""Llama's layers alone: rows of several lengths in one step, grouped heads, the attention weights for guards."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from tests.support.stock import BUILT_IN  # noqa: F401 - loads the engines' libraries, which warn when they load
from worker.engines.chatterbox.t3.alignment_guard import HEADS
from worker.engines.chatterbox.t3.kv_cache import QuerySpan
from worker.engines.chatterbox.t3.llama import Llama
from worker.precision import Precision

WIDTH, HEADS_EACH, HEAD_WIDTH = 96, 4, 64
LAYERS = 1 + max(layer for layer, _ in HEADS)


def model(*, groups: int = 1, layers: int = 2, heads: int = HEADS_EACH) -> Any:
    """A T3 with as much as `Llama` reads: backbone and speech head."""
    torch.manual_seed(0)
    configuration = LlamaConfig(
        vocab_size=8,
        hidden_size=WIDTH,
        intermediate_size=160,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // groups,
        head_dim=HEAD_WIDTH,
        rope_theta=500_000.0,
        rope_scaling={
            "factor": 8.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 128,
            "rope_type": "llama3",
        },
        attn_implementation="eager",
    )
    backbone = LlamaModel(configuration).eval().requires_grad_(False)
    for layer in backbone.layers:
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.weight = nn.Parameter(torch.rand(WIDTH) + 0.5, requires_grad=False)
    head = nn.Linear(WIDTH, 50, bias=False).requires_grad_(False)
    return SimpleNamespace(tfmr=backbone, speech_head=head)


def expected(t3: Any, states: Tensor) -> Any:
    with torch.inference_mode():
        return t3.tfmr(inputs_embeds=states[None], output_attentions=True)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_rows_of_one_step_equal_each_row_alone(groups: int) -> None:
    t3 = model(groups=groups)
    layers = Llama(t3, Precision.FP32, rows=3, length=64)
    lengths = (40, 9, 1)
    texts = [torch.randn(length + 3, WIDTH) for length in lengths]
    found: list[list[Tensor]] = [[], [], []]
    with torch.inference_mode():
        spans = [QuerySpan(row, 0, length) for row, length in enumerate(lengths)]
        new = torch.cat([text[:length] for text, length in zip(texts, lengths, strict=True)])
        for row, states in enumerate(layers.forward(new, spans, {}).split(lengths)):
            found[row].append(states)
        for step in range(3):
            spans = [QuerySpan(row, lengths[row] + step, 1) for row in (2, 0, 1)]
            new = torch.stack([texts[span.row][span.start] for span in spans])
            for span, states in zip(spans, layers.forward(new, spans, {}), strict=True):
                found[span.row].append(states[None])
    for text, states in zip(texts, found, strict=True):
        assert (torch.cat(states) - expected(t3, text).last_hidden_state[0]).abs().max() < 2e-5


def test_logits_are_those_of_the_head() -> None:
    t3 = model()
    layers = Llama(t3, Precision.FP32, rows=1, length=64)
    states = torch.randn(5, WIDTH)
    with torch.inference_mode():
        assert (layers.logits(states) - t3.speech_head(states)).abs().max() < 1e-5


class RecordingGuard:
    """Stands in for an AlignmentGuard and records the weights that it gets."""

    def __init__(self, start: int, stop: int) -> None:
        self.text = slice(start, stop)
        self.observed: dict[int, dict[int, Tensor]] = {}

    def observe(self, head: int, position: int, weights: Tensor) -> None:
        self.observed.setdefault(head, {})[position] = weights


@pytest.mark.parametrize("chunks", [(14,), (10, 4), (13, 1), (3, 9, 2)])
def test_a_guard_gets_the_weights_of_its_heads_behind_the_text(chunks: tuple[int, ...]) -> None:
    """All of those weights and no others, whatever the chunks of the text."""
    t3 = model(layers=LAYERS, heads=16)
    layers = Llama(t3, Precision.FP32, rows=2, length=64)
    text = torch.randn(16, WIDTH)
    guard: Any = RecordingGuard(4, 12)
    with torch.inference_mode():
        start = 0
        for count in (*chunks, 1, 1):
            new = torch.cat([torch.randn(1, WIDTH), text[start : start + count]])
            layers.forward(new, [QuerySpan(1, start, 1), QuerySpan(0, start, count)], {0: guard})
            start += count
    attentions = expected(t3, text).attentions
    assert sorted(guard.observed) == list(range(len(HEADS)))
    for number, (layer, head) in enumerate(HEADS):
        seen = guard.observed[number]
        ends = [position + len(weights) for position, weights in seen.items()]
        assert [min(seen), *ends] == [*seen, 16], "weights are missing or were passed twice"
        for position, weights in seen.items():
            expected_weights = attentions[layer][0, head, position : position + len(weights), : weights.shape[1]]
            assert (weights - expected_weights).abs().max() < 1e-5
        assert min(seen) == 12
