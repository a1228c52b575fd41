"""The precisions that this machine's processor has instructions for: tests go through those."""

from __future__ import annotations

from torch import Tensor

from worker.precision import Precision, detect_processor

HERE = tuple(precision for precision in Precision if detect_processor().supports(precision))
"""fp32 always, and what else there is."""

LOSS = {Precision.FP32: 1e-5, Precision.BF16: 2e-2, Precision.INT8: 3e-2}
"""Most that a product may be wrong by, as a share of its length: root of the sum of squares."""


def loss(found: Tensor, expected: Tensor) -> float:
    """What `found` is wrong by, as such a share."""
    assert found.shape == expected.shape
    return float((found - expected).norm() / expected.norm())
