"""The KV cache: each position's attention output equals plain attention over its whole sequence."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.t3.kv_cache import KVCache, QuerySpan, SharedPrefix
from worker.precision import Precision

LAYERS, HEADS, WIDTH = 2, 3, 64


@pytest.fixture(autouse=True)
def drawn() -> Iterator[None]:
    torch.manual_seed(2)
    with torch.inference_mode():
        yield


class ReferenceSequence:
    """One row, with the queries, keys and values of all its positions, (3, positions, heads, width) for each layer."""

    def __init__(self, row: int, prefix: ReferenceSequence | None = None, *, half: bool = False) -> None:
        self.row = row
        self.half = half
        self.qkv: list[Tensor] = list(prefix.qkv) if prefix else [torch.empty(3, 0, HEADS, WIDTH)] * LAYERS

    @property
    def length(self) -> int:
        return int(self.qkv[0].shape[1])

    def attention(self, layer: int, new: Tensor) -> Tensor:
        """Append new positions, (3, count, heads, width); returns their attention output, by PyTorch.

        In `half`, keys and values are rounded to float16.
        """
        if self.half:
            new = torch.cat([new[:1], new[1:].half().float()])
        self.qkv[layer] = torch.cat([self.qkv[layer], new], 1)
        queries, keys, values = self.qkv[layer].transpose(1, 2)
        output = F.scaled_dot_product_attention(queries[None], keys[None], values[None], is_causal=True)[0]
        return output.transpose(0, 1).flatten(1)[-new.shape[1] :]


def step(cache: KVCache, schedule: list[tuple[ReferenceSequence, int]]) -> None:
    """Add random new positions to some sequences in one step, and check their attention output."""
    spans = [QuerySpan(sequence.row, sequence.length, count) for sequence, count in schedule]
    plan = cache.plan_step(spans)
    for layer in range(LAYERS):
        new = [torch.randn(3, count, HEADS, WIDTH) for _, count in schedule]
        queries, keys, values = torch.cat(new, 1)
        found = cache.attention(layer, queries, keys, values, plan)
        expected = torch.cat([sequence.attention(layer, own) for (sequence, _), own in zip(schedule, new, strict=True)])
        assert (found - expected).abs().max() < 1e-5


def computed_prefix(cache: KVCache, count: int, *, half: bool = False) -> tuple[SharedPrefix, ReferenceSequence]:
    """A prefix of random positions, and its reference sequence."""
    spare = ReferenceSequence(0, half=half)
    cache.start_row(0, None)
    step(cache, [(spare, count)])
    return cache.copy_row(0, count), spare


@pytest.mark.parametrize(
    ("seed", "precision"), [*((seed, Precision.FP32) for seed in range(3)), (3, Precision.INT8), (4, Precision.BF16)]
)
def test_sequences_of_several_voices_are_computed_together(seed: int, precision: Precision) -> None:
    order, half = random.Random(seed), precision is not Precision.FP32
    cache = KVCache(layers=LAYERS, rows=6, heads=HEADS, length=100, width=WIDTH, precision=precision)
    voices = [*(computed_prefix(cache, count, half=half) for count in (70, 64, 1)), (None, None)]
    sequences: dict[int, ReferenceSequence] = {}
    for _ in range(25):
        if len(sequences) < 5:
            row = order.choice([row for row in range(1, 6) if row not in sequences])
            prefix, reference = order.choice(voices)
            cache.start_row(row, prefix)
            sequences[row] = ReferenceSequence(row, reference, half=half)
        step(
            cache,
            [
                (one, order.choice([1, 1, 1, 9]))
                for one in order.sample(list(sequences.values()), order.randint(1, len(sequences)))
            ],
        )
        for row in [row for row, one in sequences.items() if one.length > 150 or order.random() < 0.1]:
            del sequences[row]


def test_a_row_may_be_filled_to_its_last_position() -> None:
    cache = KVCache(layers=LAYERS, rows=2, heads=HEADS, length=67, width=WIDTH)
    prefix, reference = computed_prefix(cache, 5)
    cache.start_row(1, prefix)
    sequence = ReferenceSequence(1, reference)
    step(cache, [(sequence, 60)])
    for _ in range(7):
        step(cache, [(sequence, 1)])
    assert sequence.length == 5 + cache.length


def test_a_prefix_outlives_the_row_it_was_copied_from() -> None:
    cache = KVCache(layers=LAYERS, rows=2, heads=HEADS, length=64, width=WIDTH)
    prefix, reference = computed_prefix(cache, 30)
    computed_prefix(cache, 40)
    cache.start_row(1, prefix)
    step(cache, [(ReferenceSequence(1, reference), 1)])


def test_weights_are_those_of_plain_attention() -> None:
    cache = KVCache(layers=LAYERS, rows=2, heads=HEADS, length=64, width=WIDTH)
    prefix, reference = computed_prefix(cache, 20)
    cache.start_row(1, prefix)
    sequence = ReferenceSequence(1, reference)
    span = QuerySpan(1, 20, 6)
    new = torch.randn(3, 6, HEADS, WIDTH)
    cache.attention(1, new[0], new[1], new[2], cache.plan_step([span]))
    sequence.attention(1, new)
    for head in range(HEADS):
        queries, keys = sequence.qkv[1][0, -6:, head], sequence.qkv[1][1, :, head]
        scores = queries @ keys.t() * WIDTH**-0.5
        later = torch.ones(6, 26, dtype=torch.bool).triu(diagonal=21)
        expected = torch.softmax(scores.masked_fill(later, -torch.inf), -1)
        assert (cache.attention_weights(1, 1, head, new[0, :, head], span) - expected).abs().max() < 1e-6


def test_heads_of_another_width_are_refused() -> None:
    cache = KVCache(layers=1, rows=1, heads=2, length=8, width=32)
    new = torch.randn(1, 2, 32)
    with pytest.raises(ValueError, match="heads of 64 dimensions, and these have 32"):
        cache.attention(0, new, new, new, cache.plan_step([QuerySpan(0, 0, 1)]))


@pytest.mark.parametrize(("precision", "size"), [(Precision.FP32, 4), (Precision.BF16, 2), (Precision.INT8, 2)])
def test_the_memory_of_a_row_is_as_stated(precision: Precision, size: int) -> None:
    cache = KVCache(layers=LAYERS, rows=5, heads=HEADS, length=100, width=WIDTH, precision=precision)
    assert cache.bytes_per_row == 2 * size * LAYERS * HEADS * WIDTH * 128
