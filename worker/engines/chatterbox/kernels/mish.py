"""The estimator's activation: x * tanh(log(1 + e**x)) (Mish, arXiv 1908.08681)."""

from __future__ import annotations

from torch import Tensor

from worker.engines.chatterbox.kernels.jit import compiled, shared
from worker.engines.chatterbox.kernels.simd.activations import mish_row


def mish_(states: Tensor) -> Tensor:
    """Of contiguous float32 (…, channels), a multiple of 16, in their place: a fifth of the time of PyTorch's own."""
    rows = states.view(-1, states.shape[-1]).numpy()
    shared(_mish, len(rows), rows)
    return states


@compiled
def _mish(first, end, states):  # type: ignore[no-untyped-def]
    channels = states.shape[1]
    for row in range(first, end):
        mish_row(states.ctypes.data + row * channels * 4, channels)
