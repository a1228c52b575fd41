"""In which numbers a batched engine computes, and which of them this host's processor has instructions for.

Imports no engine library: `chorus serve` says what a precision gains before any worker starts.
"""

from __future__ import annotations

from enum import StrEnum


class Precision(StrEnum):
    """How products are computed; what is between them is always float32."""

    FP32 = "fp32"
    """As upstream computes: equal to it but for the order of additions."""
    BF16 = "bf16"
    """Weights and activations of the products in bfloat16, summed up in float32."""
    INT8 = "int8"
    """Weights in 8 bits with a scale for each channel, activations in 8 bits with a scale for each position."""
