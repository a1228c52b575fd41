"""Vector code against NumPy's and PyTorch's own, number by number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it

from worker.engines.chatterbox.compiled import compiled
from worker.engines.chatterbox.vectors.activations import gelu_row, mish_row, snake_row
from worker.engines.chatterbox.vectors.code import LANES
from worker.engines.chatterbox.vectors.powers import exponentials, powers
from worker.engines.chatterbox.vectors.tiles import turned_block

NUMBERS = np.concatenate(
    [
        np.linspace(-120, 120, 4096),
        np.linspace(-3, 3, 4096),
        [0.0, -0.0, 1e-30, -1e-30, 1e6, -1e6, 88.0, -88.0, *[0.0] * 8],
    ]
).astype(np.float32)


@compiled
def _mish(numbers):  # type: ignore[no-untyped-def]
    mish_row(numbers.ctypes.data, len(numbers))


@compiled
def _gelu(numbers):  # type: ignore[no-untyped-def]
    gelu_row(numbers.ctypes.data, len(numbers))


@compiled
def _snake(numbers, frequencies, shares, out):  # type: ignore[no-untyped-def]
    snake_row(numbers.ctypes.data, frequencies.ctypes.data, shares.ctypes.data, len(numbers), out.ctypes.data)


@compiled
def _exponentials(scores, factor):  # type: ignore[no-untyped-def]
    return exponentials(scores.ctypes.data, factor, len(scores))


@compiled
def _powers(exponents, most, bits, out):  # type: ignore[no-untyped-def]
    return powers(exponents.ctypes.data, most, bits, len(exponents), out.ctypes.data)


@compiled
def _turned(block, out):  # type: ignore[no-untyped-def]
    turned_block(block.ctypes.data, block.strides[0], out.ctypes.data, out.strides[0])


@pytest.mark.parametrize(
    ("found", "expected", "differs"), [(_mish, F.mish, 2e-7), (_gelu, F.gelu, 3e-7)], ids=["mish", "gelu"]
)
def test_an_activation(found: Callable[..., Any], expected: Callable[..., Any], differs: float) -> None:
    numbers = NUMBERS.copy()
    found(numbers)
    right = expected(torch.from_numpy(NUMBERS).double()).numpy()
    assert np.all(np.abs(numbers - right) <= differs * np.maximum(1, np.abs(right)))


def test_snake() -> None:
    frequencies = np.random.default_rng(1).uniform(0.2, 3, len(NUMBERS)).astype(np.float32)
    shares, out = (1 / (frequencies + 1e-9)).astype(np.float32), np.empty_like(NUMBERS)
    _snake(NUMBERS, frequencies, shares, out)
    angles = NUMBERS.astype(np.float64) * frequencies
    right = NUMBERS + np.sin(angles) ** 2 / frequencies
    # The angle itself is a float32, whose last digit counts the more the larger it is.
    assert np.all(np.abs(out - right) <= 1e-6 + 2e-7 * np.abs(right) * np.maximum(1, np.abs(angles)))


@pytest.mark.parametrize("spread", [0.1, 3.0, 40.0])
def test_exponentials_of_a_softmax(spread: float) -> None:
    scores = (spread * np.random.default_rng(2).standard_normal(700 // LANES * LANES)).astype(np.float32)
    numbers = scores.copy()
    total = _exponentials(numbers, np.float32(0.7))
    right = 2 ** ((scores.astype(np.float64) - scores.max()) * np.float64(np.float32(0.7)))
    # An exponent is a float32 itself, whose last digit counts the more the larger it is.
    assert np.all(np.abs(numbers - right) <= 1e-7 * (10 + np.ptp(scores)) * right + 1e-37)
    assert total == pytest.approx(right.sum(), rel=1e-6)


def test_powers_as_words() -> None:
    """A word's half digit, and the polynomial's 4e-6."""
    exponents = np.random.default_rng(3).uniform(-25, 4, 1024).astype(np.float32)
    out = np.empty(1024, np.int16)
    total = _powers(exponents, exponents.max(), np.float32(12), out)
    right = 2 ** (exponents.astype(np.float64) - exponents.max() + 12)
    assert np.all(np.abs(out - right) <= 0.5 + 1e-5 * right)
    assert total == int(out.astype(np.int64).sum())
    assert out.max() == 2**12


def test_a_block_turned() -> None:
    rows = np.random.default_rng(4).integers(-(2**31), 2**31, (LANES, 40), np.int32)
    out = np.zeros((LANES, 24), np.int32)
    _turned(rows[:, 7:], out[:, 3:])
    assert np.array_equal(out[:, 3 : 3 + LANES], rows[:, 7 : 7 + LANES].T)
    assert not out[:, :3].any()
    assert not out[:, 3 + LANES :].any()
