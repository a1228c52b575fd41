"""oneDNN's operators for float32 and bfloat16, as PyTorch's own compiler calls them.

PyTorch on CPUs computes float32 products by MKL, which leaves half of an AMD core's AVX-512 unused, and its
convolutions reorder their input. These operators take the weights where they lie, on the mapped file that all workers
share, or reordered once; and activations with the channels last, as a convolution needs them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from worker.precision import Precision

Layer = Callable[[Tensor], Tensor]
"""Takes float32 or bfloat16; returns bfloat16 where it computes in bfloat16, else float32."""

mkldnn: Any = torch.ops.mkldnn


def float_dtype(precision: Precision) -> torch.dtype:
    """The dtype of a layer that computes in floating point: bfloat16 in bf16, float32 in every other precision."""
    return torch.bfloat16 if precision is Precision.BF16 else torch.float32
