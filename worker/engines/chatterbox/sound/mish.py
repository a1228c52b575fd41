"""The estimator's activation: x * tanh(log(1 + e**x)) (Mish, arXiv 1908.08681)."""

from __future__ import annotations

from torch import Tensor

from worker.engines.chatterbox.compiled import compiled
from worker.engines.chatterbox.vectors.activations import mish_row


def mish_(states: Tensor) -> Tensor:
    """Of contiguous float32 (…, channels), a multiple of 16, in their place: a fifth of the time of PyTorch's own."""
    _mish(states.view(-1, states.shape[-1]).numpy())
    return states


@compiled
def _mish(states):  # type: ignore[no-untyped-def]
    rows, channels = states.shape
    for row in range(rows):
        mish_row(states.ctypes.data + row * channels * 4, channels)
