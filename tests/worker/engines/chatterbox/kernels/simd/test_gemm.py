"""Micro-kernels and the transposition of a block by vector code against NumPy's, number by number."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tests.support.precisions import precision_params
from worker.engines.chatterbox.kernels.jit import ArrayI32, ArrayU8, jit
from worker.engines.chatterbox.kernels.simd.emitter import LANES
from worker.engines.chatterbox.kernels.simd.gemm import MR, NR, tile_int8_from, transpose_block
from worker.precision import Precision


@jit
def _tile_int8_from(a: ArrayU8, b: npt.NDArray[np.int8], initial: ArrayI32, c: ArrayI32) -> None:
    k, (lda, ldc) = b.shape[0], (a.shape[1], c.strides[0])
    tile_int8_from(a.ctypes.data, lda, b.ctypes.data, b.strides[0], k, c.ctypes.data, ldc, initial.ctypes.data)


@jit
def _transpose_block(block: ArrayI32, out: ArrayI32) -> None:
    transpose_block(block.ctypes.data, block.strides[0], out.ctypes.data, out.strides[0])


@pytest.mark.parametrize("_precision", precision_params([Precision.INT8]))
def test_an_int8_tile_with_initial_sums(_precision: Precision) -> None:
    draw = np.random.default_rng(9)
    a = draw.integers(0, 256, (MR, 32), np.uint8)
    b = draw.integers(-127, 128, (8, NR, 4), np.int8)
    initial, c = draw.integers(-(2**20), 2**20, NR, np.int32), np.empty((MR, NR), np.int32)
    _tile_int8_from(a, b, initial, c)
    products = np.einsum("mkg,kng->mn", a.reshape(MR, 8, 4).astype(np.int64), b.astype(np.int64))
    assert np.array_equal(c, products + initial)


def test_a_transposed_block() -> None:
    rows = np.random.default_rng(4).integers(-(2**31), 2**31, (LANES, 40), np.int32)
    out = np.zeros((LANES, 24), np.int32)
    _transpose_block(rows[:, 7:], out[:, 3:])
    assert np.array_equal(out[:, 3 : 3 + LANES], rows[:, 7 : 7 + LANES].T)
    assert not out[:, :3].any()
    assert not out[:, 3 + LANES :].any()
