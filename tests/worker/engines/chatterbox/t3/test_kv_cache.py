"""The cache of keys and values: what each position hears is what plain attention over its whole sequence gives it."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.t3.kv_cache import KeysValues, Prompt, Span

LAYERS, HEADS, WIDTH = 2, 3, 64


@pytest.fixture(autouse=True)
def drawn() -> Iterator[None]:
    torch.manual_seed(2)
    with torch.inference_mode():
        yield


class Sequence:
    """One row: everything that was ever said to it, for each layer."""

    def __init__(self, row: int, known: Sequence | None = None) -> None:
        self.row = row
        self.said: list[Tensor] = list(known.said) if known else [torch.empty(3, 0, HEADS, WIDTH)] * LAYERS

    @property
    def length(self) -> int:
        return int(self.said[0].shape[1])

    def say(self, layer: int, new: Tensor) -> Tensor:
        """What the new positions, (3, count, heads, width), hear, by PyTorch's attention."""
        self.said[layer] = torch.cat([self.said[layer], new], 1)
        queries, keys, values = self.said[layer].transpose(1, 2)
        heard = F.scaled_dot_product_attention(queries[None], keys[None], values[None], is_causal=True)[0]
        return heard.transpose(0, 1).flatten(1)[-new.shape[1] :]


def step(cache: KeysValues, turns: list[tuple[Sequence, int]]) -> None:
    """New positions of some sequences at once; what each hears is checked."""
    spans = [Span(sequence.row, sequence.length, count) for sequence, count in turns]
    places = cache.places(spans)
    for layer in range(LAYERS):
        new = [torch.randn(3, count, HEADS, WIDTH) for _, count in turns]
        queries, keys, values = torch.cat(new, 1)
        found = cache.attend(layer, queries, keys, values, places)
        expected = torch.cat([sequence.say(layer, its) for (sequence, _), its in zip(turns, new, strict=True)])
        assert (found - expected).abs().max() < 1e-5


def prompt(cache: KeysValues, count: int) -> tuple[Prompt, Sequence]:
    spare = Sequence(0)
    cache.begin(0, None)
    step(cache, [(spare, count)])
    return cache.take(0, count), spare


@pytest.mark.parametrize("seed", range(3))
def test_sequences_of_several_voices_grow_together(seed: int) -> None:
    order = random.Random(seed)
    cache = KeysValues(layers=LAYERS, rows=6, heads=HEADS, length=100, width=WIDTH)
    voices = [prompt(cache, 70), prompt(cache, 64), prompt(cache, 1), (None, None)]
    sequences: dict[int, Sequence] = {}
    for _ in range(25):
        if len(sequences) < 5:
            row = order.choice([row for row in range(1, 6) if row not in sequences])
            known, said = order.choice(voices)
            cache.begin(row, known)
            sequences[row] = Sequence(row, said)
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
    cache = KeysValues(layers=LAYERS, rows=2, heads=HEADS, length=67, width=WIDTH)
    known, said = prompt(cache, 5)
    cache.begin(1, known)
    sequence = Sequence(1, said)
    step(cache, [(sequence, 60)])
    for _ in range(7):
        step(cache, [(sequence, 1)])
    assert sequence.length == 5 + cache.length


def test_a_prompt_outlives_the_row_it_was_taken_from() -> None:
    cache = KeysValues(layers=LAYERS, rows=2, heads=HEADS, length=64, width=WIDTH)
    known, said = prompt(cache, 30)
    prompt(cache, 40)
    cache.begin(1, known)
    step(cache, [(Sequence(1, said), 1)])


def test_weights_are_those_of_plain_attention() -> None:
    cache = KeysValues(layers=LAYERS, rows=2, heads=HEADS, length=64, width=WIDTH)
    known, said = prompt(cache, 20)
    cache.begin(1, known)
    sequence = Sequence(1, said)
    span = Span(1, 20, 6)
    new = torch.randn(3, 6, HEADS, WIDTH)
    cache.attend(1, new[0], new[1], new[2], cache.places([span]))
    sequence.say(1, new)
    for head in range(HEADS):
        queries, keys = sequence.said[1][0, -6:, head], sequence.said[1][1, :, head]
        scores = queries @ keys.t() * WIDTH**-0.5
        later = torch.ones(6, 26, dtype=torch.bool).triu(diagonal=21)
        expected = torch.softmax(scores.masked_fill(later, -torch.inf), -1)
        assert (cache.weights(1, 1, head, new[0, :, head], span) - expected).abs().max() < 1e-6


def test_heads_of_another_width_are_refused() -> None:
    cache = KeysValues(layers=1, rows=1, heads=2, length=8, width=32)
    new = torch.randn(1, 2, 32)
    with pytest.raises(ValueError, match="heads of 64 numbers, and these have 32"):
        cache.attend(0, new, new, new, cache.places([Span(0, 0, 1)]))


def test_the_memory_of_a_row_is_as_stated() -> None:
    cache = KeysValues(layers=LAYERS, rows=5, heads=HEADS, length=100, width=WIDTH)
    assert cache.bytes_a_row == 2 * 4 * LAYERS * HEADS * WIDTH * 128
