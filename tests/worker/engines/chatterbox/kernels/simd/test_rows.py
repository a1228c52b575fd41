"""Operations on rows by vector code against NumPy's, number by number."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from worker.engines.chatterbox.kernels.jit import ArrayF32, ArrayI8, ArrayI32, jit
from worker.engines.chatterbox.kernels.simd.gemm import NR
from worker.engines.chatterbox.kernels.simd.rows import (
    add_bias,
    dequantize,
    interleave_halves,
    join_halves,
    narrow_f16,
    scale_sums,
    widen_f16,
)

ArrayI16 = npt.NDArray[np.int16]


@jit
def _dequantize(
    sums: ArrayI32,
    corrections: ArrayI32,
    row_scales: ArrayF32,
    column_scales: ArrayF32,
    bias: ArrayF32,
    out: ArrayF32,
) -> None:
    places = row_scales.ctypes.data, column_scales.ctypes.data, bias.ctypes.data
    dequantize(sums.ctypes.data, len(sums), corrections.ctypes.data, *places, out.ctypes.data, out.strides[0])


@jit
def _add_bias(row: ArrayF32, bias: ArrayF32, out: ArrayF32) -> None:
    add_bias(row.ctypes.data, bias.ctypes.data, len(row), out.ctypes.data)


def test_dequantize() -> None:
    draw = np.random.default_rng(6)
    sums, corrections = draw.integers(-(2**22), 2**22, (5, NR), np.int32), draw.integers(-(2**22), 2**22, NR, np.int32)
    row_scales, column_scales, bias = (draw.standard_normal(count).astype(np.float32) for count in (5, NR, NR))
    whole = np.zeros((5, 3 * NR), np.float32)
    _dequantize(sums, corrections, row_scales, column_scales, bias, whole[:, NR:])
    out = whole[:, NR : 2 * NR]
    exact = (sums - corrections).astype(np.float64) * row_scales[:, None] * column_scales + bias
    assert np.allclose(out, exact, rtol=1e-6, atol=1e-6 * np.abs(exact).max())
    assert not whole[:, :NR].any()
    assert not whole[:, 2 * NR :].any()


@jit
def _scale_sums(sums: ArrayI32, factor: np.float32, out: ArrayF32) -> None:
    scale_sums(sums.ctypes.data, factor, len(sums), out.ctypes.data)


def test_scale_sums() -> None:
    sums, out = np.random.default_rng(8).integers(-(2**31), 2**31, 48, np.int32), np.empty(48, np.float32)
    _scale_sums(sums, np.float32(0.3), out)
    assert np.array_equal(out, sums.astype(np.float32) * np.float32(0.3))


@jit
def _interleave_halves(rows: ArrayF32, scale: np.float32, low: ArrayI8, high: ArrayI8) -> None:
    places = low.ctypes.data, high.ctypes.data
    interleave_halves(rows.ctypes.data, rows.strides[0], rows.shape[1], scale, *places, low.strides[0])


def test_numbers_of_ten_bits_are_halved_and_interleaved() -> None:
    integers = np.random.default_rng(10).integers(-511, 512, (4, 32), np.int32)
    integers[0, :6] = -511, 511, -8, 7, 8, -9
    low, high = np.empty((2, 16, 4), np.int8), np.empty((2, 16, 4), np.int8)
    _interleave_halves((integers * np.float32(0.5)).astype(np.float32), np.float32(2), low, high)
    numbers = low.astype(np.int32) + 16 * high.astype(np.int32)
    assert np.array_equal(numbers, integers.T.reshape(2, 16, 4))


@jit
def _join_halves(sums: ArrayI32, factor: np.float32, out: ArrayF32) -> None:
    join_halves(sums[0].ctypes.data, sums[1].ctypes.data, NR * 4, factor, out.ctypes.data)


def test_sums_of_halves_are_joined() -> None:
    draw = np.random.default_rng(11)
    weights, values = draw.integers(0, 4097, 300), draw.integers(-511, 512, (300, NR))
    value_highs = values + 8 >> 4
    value_halves = np.stack([values - 16 * value_highs, value_highs])
    sums = np.array([weights & 255, weights >> 8]) @ value_halves
    out = np.empty(NR, np.float32)
    _join_halves(np.ascontiguousarray(sums.transpose(1, 0, 2), np.int32), np.float32(0.25), out)
    assert np.array_equal(out, (weights @ values).astype(np.float32) * np.float32(0.25))


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
