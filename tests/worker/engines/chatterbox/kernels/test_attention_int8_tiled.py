"""Attention in matrix tiles against the same in vectors, bit for bit."""

from __future__ import annotations

import pytest
import torch

from tests.support.tiles import WITHOUT_TILES, needs_tiles
from worker.engines.chatterbox.kernels import attention_int8, packed_gemm
from worker.engines.chatterbox.kernels.attention_int8 import SelfAttentionInt8
from worker.engines.chatterbox.kernels.quantize import quantize_rows


@needs_tiles
@pytest.mark.parametrize("time", [1, 3, 15, 16, 17, 63, 64, 65, 333])
@pytest.mark.parametrize("inputs", [48, 64], ids="{} inputs".format)
def test_matrix_tiles_give_the_attention_of_vectors(monkeypatch: pytest.MonkeyPatch, time: int, inputs: int) -> None:
    torch.manual_seed(1)
    states = torch.randn(time, inputs) * torch.logspace(-2, 1, time)[:, None]
    quantized, weights = quantize_rows(states), torch.randn(3, 128, inputs)
    attention = SelfAttentionInt8(weights[0], weights[1], weights[2], 2)
    tiled = attention(*quantized)
    for module in (attention_int8, packed_gemm):
        monkeypatch.setattr(module, "TARGET", WITHOUT_TILES)
    assert torch.equal(tiled, attention(*quantized))
