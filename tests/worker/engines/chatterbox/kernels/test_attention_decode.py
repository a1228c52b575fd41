"""Attention of a decoding step against PyTorch's; the KV cache's tests have whole utterances."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.kernels.attention_decode import KEY_BLOCK, attention_decode
from worker.engines.chatterbox.kernels.attention_tiles import HEAD_DIM

ROWS, HEADS, LENGTH = 5, 2, 3 * KEY_BLOCK
USED, POSITIONS = [4, 0, 2], [0, KEY_BLOCK, LENGTH - 1]
"""The rows of three sequences, and the position of each that is new."""


def blocked(keys: Tensor) -> Tensor:
    """Keys (…, positions, HEAD_DIM) as the kernel reads them: (…, blocks, HEAD_DIM, KEY_BLOCK), padded with zeros."""
    padded = F.pad(keys, (0, 0, 0, -keys.shape[-2] % KEY_BLOCK))
    return padded.unflatten(-2, (-1, KEY_BLOCK)).transpose(-1, -2).contiguous()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("prefix_length", [0, 1, KEY_BLOCK, 2 * KEY_BLOCK + 3])
def test_new_positions_attend_to_prefix_own_positions_and_themselves(dtype: torch.dtype, prefix_length: int) -> None:
    torch.manual_seed(1)
    queries = torch.randn(len(USED), HEADS, HEAD_DIM)
    new_keys, new_values = torch.randn(2, len(USED), HEADS, HEAD_DIM).to(dtype).float()
    prefix_keys, prefix_values = torch.randn(2, HEADS, prefix_length, HEAD_DIM).to(dtype)
    keys, values = torch.randn(2, ROWS, HEADS, LENGTH, HEAD_DIM).to(dtype)
    own_keys, own_values = blocked(keys), values.clone()
    rows, positions = torch.tensor(USED), torch.tensor(POSITIONS)
    found = attention_decode(
        (queries, new_keys, new_values),
        (blocked(prefix_keys), prefix_values),
        (own_keys, own_values),
        rows,
        positions,
    )
    keys[rows, :, positions], values[rows, :, positions] = new_keys.to(dtype), new_values.to(dtype)
    for sequence, (row, position) in enumerate(zip(USED, POSITIONS, strict=True)):
        all_keys = torch.cat([prefix_keys, keys[row, :, : position + 1]], 1).float()
        all_values = torch.cat([prefix_values, values[row, :, : position + 1]], 1).float()
        query = queries[sequence, :, None]
        expected = F.scaled_dot_product_attention(query[None], all_keys[None], all_values[None]).flatten()
        assert (found[sequence] - expected).abs().max() < 1e-5
    assert torch.equal(own_keys, blocked(keys)), "the new keys are kept, and no other is changed"
    assert torch.equal(own_values, values)


def test_heads_of_another_width_are_refused() -> None:
    new = torch.randn(3, 1, 2, 32)
    own = torch.zeros(1, 2, 1, 32, KEY_BLOCK), torch.zeros(1, 2, KEY_BLOCK, 32)
    prefix = torch.zeros(2, 0, 32, KEY_BLOCK), torch.zeros(2, 0, 32)
    with pytest.raises(ValueError, match="heads of 64 dimensions, and these have 32"):
        attention_decode((new[0], new[1], new[2]), prefix, own, torch.tensor([0]), torch.tensor([0]))
