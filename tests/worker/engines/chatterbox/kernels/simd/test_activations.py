"""Activation functions by vector code against PyTorch's own, number by number."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.kernels.jit import ArrayF32, jit
from worker.engines.chatterbox.kernels.simd.activations import (
    gelu_row,
    gelu_tanh_row,
    mish_row,
    silu_row,
    snake_row,
)

NUMBERS = np.concatenate(
    [
        np.linspace(-120, 120, 4096),
        np.linspace(-3, 3, 4096),
        [0.0, -0.0, 1e-30, -1e-30, 1e6, -1e6, 88.0, -88.0, *[0.0] * 8],
    ]
).astype(np.float32)


@jit
def _mish(numbers: ArrayF32) -> None:
    mish_row(numbers.ctypes.data, len(numbers))


@jit
def _gelu(numbers: ArrayF32) -> None:
    gelu_row(numbers.ctypes.data, len(numbers))


@jit
def _gelu_tanh(numbers: ArrayF32) -> None:
    gelu_tanh_row(numbers.ctypes.data, len(numbers))


@jit
def _silu(numbers: ArrayF32) -> None:
    silu_row(numbers.ctypes.data, len(numbers))


@jit
def _snake(numbers: ArrayF32, frequencies: ArrayF32, scales: ArrayF32, out: ArrayF32) -> None:
    snake_row(numbers.ctypes.data, frequencies.ctypes.data, scales.ctypes.data, len(numbers), out.ctypes.data)


@pytest.mark.parametrize(
    ("activation", "expected", "tolerance"),
    [
        (_mish, F.mish, 2e-7),
        (_gelu, F.gelu, 3e-7),
        (_gelu_tanh, partial(F.gelu, approximate="tanh"), 3e-7),
        (_silu, F.silu, 3e-7),
    ],
    ids=["mish", "gelu", "gelu-tanh", "silu"],
)
def test_an_activation(
    activation: Callable[[ArrayF32], None], expected: Callable[[Tensor], Tensor], tolerance: float
) -> None:
    numbers = NUMBERS.copy()
    activation(numbers)
    exact = expected(torch.from_numpy(NUMBERS).double()).numpy()
    assert np.all(np.abs(numbers - exact) <= tolerance * np.maximum(1, np.abs(exact)))


def test_gelu_gives_no_subnormal_numbers() -> None:
    """They would take a processor of Intel's a hundred times as long."""
    numbers = np.linspace(-30, -1, 4096).astype(np.float32)
    _gelu(numbers)
    assert np.all(np.abs(numbers) >= np.finfo(np.float32).tiny)


def test_snake() -> None:
    frequencies = np.random.default_rng(1).uniform(0.2, 3, len(NUMBERS)).astype(np.float32)
    scales, out = (1 / (frequencies + 1e-9)).astype(np.float32), np.empty_like(NUMBERS)
    _snake(NUMBERS, frequencies, scales, out)
    angles = NUMBERS.astype(np.float64) * frequencies
    exact = NUMBERS + np.sin(angles) ** 2 / frequencies
    # The angle itself is a float32: the larger it is, the more its last digit counts.
    assert np.all(np.abs(out - exact) <= 1e-6 + 2e-7 * np.abs(exact) * np.maximum(1, np.abs(angles)))
