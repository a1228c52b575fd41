"""Operations on one row by vector code against NumPy's, number by number."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from worker.engines.chatterbox.kernels.jit import ArrayF32, ArrayI32, jit
from worker.engines.chatterbox.kernels.simd.rows import add_bias, dequantize, narrow_f16, widen_f16

ArrayI16 = npt.NDArray[np.int16]


@jit
def _dequantize(
    sums: ArrayI32,
    corrections: ArrayI32,
    row_scale: np.float32,
    column_scales: ArrayF32,
    bias: ArrayF32,
    out: ArrayF32,
) -> None:
    places = column_scales.ctypes.data, bias.ctypes.data
    dequantize(sums.ctypes.data, corrections.ctypes.data, row_scale, *places, len(sums), out.ctypes.data)


@jit
def _add_bias(row: ArrayF32, bias: ArrayF32, out: ArrayF32) -> None:
    add_bias(row.ctypes.data, bias.ctypes.data, len(row), out.ctypes.data)


def test_dequantize() -> None:
    draw = np.random.default_rng(6)
    sums, corrections = (draw.integers(-(2**22), 2**22, 64, np.int32) for _ in range(2))
    column_scales, bias = (draw.standard_normal(64).astype(np.float32) for _ in range(2))
    out = np.empty(64, np.float32)
    _dequantize(sums, corrections, np.float32(0.01), column_scales, bias, out)
    exact = (sums - corrections).astype(np.float64) * np.float32(0.01) * column_scales + bias
    assert np.allclose(out, exact, rtol=1e-6, atol=1e-6 * np.abs(exact).max())


def test_add_bias() -> None:
    row, bias = (np.random.default_rng(seed).standard_normal(64).astype(np.float32) for seed in (7, 8))
    out = np.empty(64, np.float32)
    _add_bias(row, bias, out)
    assert np.array_equal(out, row + bias)


@jit
def _narrow(row: ArrayF32, out: ArrayI16) -> None:
    narrow_f16(row.ctypes.data, len(row), out.ctypes.data)


@jit
def _widen(row: ArrayI16, out: ArrayF32) -> None:
    widen_f16(row.ctypes.data, len(row), out.ctypes.data)


def test_float16_is_rounded_and_widened_as_numpy_does() -> None:
    # Subnormal, largest, too large, negative zero, and ties.
    special = np.array([6e-8, 65504, 1e6, -1e6, -0.0, 1 + 2**-11, 1 + 3 * 2**-11, 2**-15], np.float32)
    row = np.concatenate([special, np.random.default_rng(9).standard_normal(56).astype(np.float32)])
    half, wide = np.empty(64, np.int16), np.empty(64, np.float32)
    _narrow(row, half)
    with np.errstate(over="ignore"):
        assert np.array_equal(half, row.astype(np.float16).view(np.int16))
    _widen(half, wide)
    assert np.array_equal(wide, half.view(np.float16).astype(np.float32))
