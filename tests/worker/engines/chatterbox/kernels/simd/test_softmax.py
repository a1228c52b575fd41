"""The parts of a softmax by vector code against NumPy's, number by number."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from worker.engines.chatterbox.kernels.jit import ArrayF32, ArrayI32, jit
from worker.engines.chatterbox.kernels.simd.emitter import LANES
from worker.engines.chatterbox.kernels.simd.softmax import (
    MAXIMA,
    dequantize_scores,
    exp2_f32,
    exp2_halves,
    exp2_int16,
)


@jit
def _exp2_f32(scores: ArrayF32, factor: np.float32) -> float:
    total: float = exp2_f32(scores.ctypes.data, factor, len(scores))
    return total


@jit
def _exp2_int16(
    scores: ArrayF32, maximum: np.float32, factor: np.float32, bits: np.float32, out: npt.NDArray[np.int16]
) -> int:
    total: int = exp2_int16(scores.ctypes.data, maximum, factor, bits, len(scores), out.ctypes.data)
    return total


@jit
def _exp2_halves(
    scores: ArrayF32, maximum: np.float32, factor: np.float32, bits: np.float32, out: npt.NDArray[np.uint8]
) -> int:
    places = out[0].ctypes.data, out[1].ctypes.data
    total: int = exp2_halves(scores.ctypes.data, maximum, factor, bits, len(scores), *places)
    return total


@jit
def _dequantize_scores(sums: ArrayI32, scales: ArrayF32, out: ArrayF32) -> float:
    maximum: float = dequantize_scores(sums.ctypes.data, scales.ctypes.data, len(sums), out.ctypes.data)
    return maximum


@pytest.mark.parametrize("spread", [0.1, 3.0, 40.0])
def test_powers_of_two_as_float32(spread: float) -> None:
    scores = (spread * np.random.default_rng(2).standard_normal(MAXIMA * LANES * 11)).astype(np.float32)
    numbers = scores.copy()
    total = _exp2_f32(numbers, np.float32(0.7))
    exact = 2 ** ((scores.astype(np.float64) - scores.max()) * np.float64(np.float32(0.7)))
    # The exponent itself is a float32: the larger it is, the more its last digit counts.
    assert np.all(np.abs(numbers - exact) <= 1e-7 * (10 + np.ptp(scores)) * exact + 1e-37)
    assert total == pytest.approx(exact.sum(), rel=1e-6)


@pytest.mark.parametrize("factor", [1.0, 0.03, 2.5])
def test_powers_of_two_as_int16(factor: float) -> None:
    """Wrong by the rounding to int16, one half, and by the polynomial's share of 3e-6."""
    scores = (np.random.default_rng(3).uniform(-25, 4, 1024) / factor).astype(np.float32)
    out = np.empty(1024, np.int16)
    total = _exp2_int16(scores, scores.max(), np.float32(factor), np.float32(12), out)
    exact = 2 ** ((scores.astype(np.float64) - scores.max()) * np.float64(np.float32(factor)) + 12)
    assert np.all(np.abs(out - exact) <= 0.5 + 1e-5 * exact)
    assert total == int(out.astype(np.int64).sum())
    assert out.max() == 2**12


def test_powers_of_two_as_halves_of_int16() -> None:
    scores = np.random.default_rng(3).uniform(-25, 4, 1024).astype(np.float32)
    whole, halves = np.empty(1024, np.int16), np.empty((2, 1024), np.uint8)
    arguments = scores, scores.max(), np.float32(1), np.float32(12)
    assert _exp2_halves(*arguments, halves) == _exp2_int16(*arguments, whole)
    assert np.array_equal(halves[0] + 256 * halves[1].astype(np.int16), whole)


def test_scores_and_their_maximum() -> None:
    draw = np.random.default_rng(5)
    sums, out = draw.integers(-(2**20), 2**20, 704, np.int32), np.empty(704, np.float32)
    scales = draw.uniform(1e-3, 1, 704).astype(np.float32)
    maximum = _dequantize_scores(sums, scales, out)
    assert np.array_equal(out, sums.astype(np.float32) * scales)
    assert maximum == out.max()


def test_scores_that_are_all_below_zero() -> None:
    count = MAXIMA * LANES
    sums, out = np.full(count, -7, np.int32), np.empty(count, np.float32)
    assert _dequantize_scores(sums, np.full(count, 0.5, np.float32), out) == -3.5
