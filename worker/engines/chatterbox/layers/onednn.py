"""oneDNN's operators, for float32 and bfloat16.

PyTorch on CPUs computes float32 products by MKL, which leaves half of an AMD core's AVX-512 unused, and its
convolutions re-order what they are given. The operators below are those that PyTorch's own compiler calls for oneDNN:
they take weights where they lie, on the mapped file that all workers share, or laid out anew, and activations with the
channels last, where a convolution finds them as it needs them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from worker.precision import Precision

Layer = Callable[[Tensor], Tensor]
"""Takes float32 or bfloat16, gives what its precision computes in: float32, or bfloat16."""

mkldnn: Any = torch.ops.mkldnn


def float_dtype(precision: Precision) -> torch.dtype:
    """The dtype of a layer that computes in floating numbers: bfloat16, or float32 in every other precision."""
    return torch.bfloat16 if precision is Precision.BF16 else torch.float32
