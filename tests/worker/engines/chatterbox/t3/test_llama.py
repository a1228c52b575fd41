"""The layers of Llama alone: rows of any length beside each other, grouped heads, what is shown to guards."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from tests.support.stock import BUILT_IN  # noqa: F401 - loads the engines' libraries, which warn when they load
from worker.engines.chatterbox.t3.alignment_guard import HEADS
from worker.engines.chatterbox.t3.kv_cache import Span
from worker.engines.chatterbox.t3.llama import Llama
from worker.precision import Precision

WIDTH, HEADS_EACH, HEAD_WIDTH = 96, 4, 64
LAYERS = 1 + max(layer for layer, _ in HEADS)


def model(*, groups: int = 1, layers: int = 2, heads: int = HEADS_EACH) -> Any:
    """Enough of a T3 for its layers."""
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
def test_rows_beside_each_other_are_as_each_alone(groups: int) -> None:
    t3 = model(groups=groups)
    layers = Llama(t3, Precision.FP32, rows=3, length=64)
    lengths = (40, 9, 1)
    texts = [torch.randn(length + 3, WIDTH) for length in lengths]
    found: list[list[Tensor]] = [[], [], []]
    with torch.inference_mode():
        spans = [Span(row, 0, length) for row, length in enumerate(lengths)]
        new = torch.cat([text[:length] for text, length in zip(texts, lengths, strict=True)])
        for row, states in enumerate(layers.forward(new, spans, {}).split(lengths)):
            found[row].append(states)
        for step in range(3):
            spans = [Span(row, lengths[row] + step, 1) for row in (2, 0, 1)]
            new = torch.stack([texts[span.row][span.start] for span in spans])
            for span, states in zip(spans, layers.forward(new, spans, {}), strict=True):
                found[span.row].append(states[None])
    for text, states in zip(texts, found, strict=True):
        assert (torch.cat(states) - expected(t3, text).last_hidden_state[0]).abs().max() < 2e-5


def test_logits_are_the_heads() -> None:
    t3 = model()
    layers = Llama(t3, Precision.FP32, rows=1, length=64)
    states = torch.randn(5, WIDTH)
    with torch.inference_mode():
        assert (layers.logits(states) - t3.speech_head(states)).abs().max() < 1e-5


class Watching:
    """Stands where a guard does, and keeps what it is shown."""

    def __init__(self, start: int, stop: int) -> None:
        self.text = slice(start, stop)
        self.shown: dict[int, dict[int, Tensor]] = {}

    def see(self, head: int, position: int, weights: Tensor) -> None:
        self.shown.setdefault(head, {})[position] = weights


@pytest.mark.parametrize("pieces", [(14,), (10, 4), (13, 1), (3, 9, 2)])
def test_a_guard_is_shown_what_its_heads_hear_behind_the_text(pieces: tuple[int, ...]) -> None:
    """All of it, and nothing else, however the text comes in."""
    t3 = model(layers=LAYERS, heads=16)
    layers = Llama(t3, Precision.FP32, rows=2, length=64)
    text = torch.randn(16, WIDTH)
    guard: Any = Watching(4, 12)
    with torch.inference_mode():
        start = 0
        for count in (*pieces, 1, 1):
            new = torch.cat([torch.randn(1, WIDTH), text[start : start + count]])
            layers.forward(new, [Span(1, start, 1), Span(0, start, count)], {0: guard})
            start += count
    attentions = expected(t3, text).attentions
    assert sorted(guard.shown) == list(range(len(HEADS)))
    for number, (layer, head) in enumerate(HEADS):
        seen = guard.shown[number]
        ends = [position + len(weights) for position, weights in seen.items()]
        assert [min(seen), *ends] == [*seen, 16], "something is missing, or came twice"
        for position, weights in seen.items():
            wanted = attentions[layer][0, head, position : position + len(weights), : weights.shape[1]]
            assert (weights - wanted).abs().max() < 1e-5
        assert min(seen) == 12
