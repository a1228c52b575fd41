"""The memory that the cards state for a slot is that of the KV cache at the shapes of the real checkpoints."""

from __future__ import annotations

import pytest
from chatterbox.models.t3.llama_configs import LLAMA_CONFIGS

from worker.cards import CARDS
from worker.engines.chatterbox.batched import MAX_POSITIONS
from worker.engines.chatterbox.t3.gpt2 import Gpt2
from worker.engines.chatterbox.t3.kv_cache import KVCache
from worker.engines.chatterbox.t3.llama import Llama
from worker.engines.chatterbox.upstream.loading import HEAD_WIDTH, VARIANTS
from worker.precision import Precision

NANO = 12, 768
"""Layers and width of Nano (GPT-2 small), which upstream states only in its checkpoint."""


def shape(engine: str) -> tuple[int, int]:
    """Layers and width of T3 at full size."""
    if engine == "nano":
        return NANO
    if VARIANTS[engine].turbo:
        configuration = LLAMA_CONFIGS["GPT2_medium"]
        return configuration["n_layer"], configuration["n_embd"]
    configuration = LLAMA_CONFIGS["Llama_520M"]
    return configuration["num_hidden_layers"], configuration["hidden_size"]


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("engine", VARIANTS)
def test_a_slot_takes_the_memory_of_its_keys_and_values(engine: str, precision: Precision) -> None:
    layers, width = shape(engine)
    rows = (Gpt2 if VARIANTS[engine].turbo else Llama).rows_per_utterance
    # Allocated but never written, so not resident.
    cache = KVCache(
        layers=layers,
        rows=rows,
        heads=width // HEAD_WIDTH,
        length=MAX_POSITIONS,
        width=HEAD_WIDTH,
        precision=precision,
    )
    batched = CARDS[engine].batched
    assert batched is not None
    assert batched.slot_bytes[precision] == rows * cache.bytes_per_row


@pytest.mark.parametrize("engine", VARIANTS)
def test_reduced_precisions_take_less_memory(engine: str) -> None:
    batched = CARDS[engine].batched
    assert batched is not None
    sizes = [batched.resident_bytes[precision] for precision in (Precision.FP32, Precision.BF16, Precision.INT8)]
    assert sizes == sorted(set(sizes), reverse=True)
