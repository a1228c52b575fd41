"""Micro-kernels and the transposition of a block by vector code against NumPy's, number by number.

The kernels of every target that this processor runs are tested, not only those of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from numba import njit

from tests.support.precisions import PROCESSOR
from worker.engines.chatterbox.kernels.jit import ArrayI32, ArrayI64, jit
from worker.engines.chatterbox.kernels.simd.dot_products import DType
from worker.engines.chatterbox.kernels.simd.emitter import LANES
from worker.engines.chatterbox.kernels.simd.gemm import NR, micro_kernel, tile, tile_from, transpose_block
from worker.engines.chatterbox.kernels.simd.targets import MR, TARGETS, IntegerDotProduct, MicroKernelTarget

K = 1000
"""Products of K bytes of the largest magnitude exceed int16 a thousandfold."""


def _params() -> list[Any]:
    """A pytest parameter for each target with kernels of integers, skipped where this processor lacks them."""
    return [
        pytest.param(
            target,
            id=str(target.instruction_set),
            marks=pytest.mark.skipif(
                not target.runs_on(PROCESSOR), reason=f"needs {target.instruction_set}, and this is {PROCESSOR}"
            ),
        )
        for target in TARGETS
        # A target with matrix tiles has the vector kernels of another one.
        if target.integers is not None and not target.matrix_tiles
    ]


on_each_target = pytest.mark.parametrize("target", _params())


def _compiled(kernel: Callable[..., None], count: int) -> Callable[[ArrayI64], None]:
    """A function that calls a kernel with `count` addresses and counts, which an array holds."""
    if count == 8:
        compiled = njit(lambda a: kernel(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]))
    elif count == 7:
        compiled = njit(lambda a: kernel(a[0], a[1], a[2], a[3], a[4], a[5], a[6]))
    else:
        compiled = njit(lambda a: kernel(a[0], a[1], a[2], a[3], a[4], a[5]))
    return cast("Callable[[ArrayI64], None]", compiled)


def _call(kernel: Callable[[ArrayI64], None], *arguments: Any) -> None:
    """Call a compiled kernel with counts, and with arrays by their address."""
    kernel(np.array([a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]))


def _bytes(rows: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int8]]:
    """A, (rows, K), and B, (NR, K): in the first of each, the smallest and largest numbers side by side."""
    draw = np.random.default_rng(9)
    a, b = draw.integers(0, 256, (rows, K), np.uint8), draw.integers(-128, 128, (NR, K), np.int8)
    a[0], b[0], b[1], b[2, ::2], b[2, 1::2] = 255, -128, 127, -128, 127
    if rows > 3:
        a[1], a[2, ::2], a[2, 1::2] = 0, 255, 0
    return a, b


def _groups(numbers: npt.NDArray[Any], group: int) -> npt.NDArray[Any]:
    """(columns, K) as groups that lie side by side: (K / group, columns, group)."""
    return np.ascontiguousarray(numbers.reshape(len(numbers), -1, group).transpose(1, 0, 2))


def _as_activations(a: npt.NDArray[np.uint8], target: MicroKernelTarget) -> npt.NDArray[Any]:
    """A as the target multiplies it."""
    return a if target.integers is IntegerDotProduct.VNNI else a.astype(np.int16)


@on_each_target
def test_an_int8_tile_with_initial_sums(target: MicroKernelTarget) -> None:
    assert target.integers is not None
    group, (bytes_a, bytes_b) = target.integers.value, _bytes(MR)
    a, b = _as_activations(bytes_a, target), _groups(bytes_b, group)
    initial = np.random.default_rng(2).integers(-(2**20), 2**20, NR, np.int32)
    c = np.empty((MR, NR), np.int32)
    kernel = _compiled(tile_from(DType.INT8, target), 8)
    _call(kernel, a, a.strides[0], b, b.strides[0], len(b), c, c.strides[0], initial)
    assert np.array_equal(c, bytes_a.astype(np.int64) @ bytes_b.astype(np.int64).T + initial)


@on_each_target
def test_an_int16_tile(target: MicroKernelTarget) -> None:
    draw = np.random.default_rng(3)
    a, b = draw.integers(0, 4097, (MR, K), np.int16), draw.integers(-511, 512, (NR, K), np.int16)
    a[0], b[0], b[1] = 2**12, -511, 511
    groups, c = _groups(b, 2), np.empty((MR, NR), np.int32)
    kernel = _compiled(tile(DType.INT16, target), 7)
    _call(kernel, a, a.strides[0], groups, groups.strides[0], len(groups), c, c.strides[0])
    assert np.array_equal(c, a.astype(np.int64) @ b.astype(np.int64).T)


@on_each_target
def test_blocks_of_a_packed_int8_product(target: MicroKernelTarget) -> None:
    assert target.integers is not None
    group, kernel = target.integers.value, _compiled(micro_kernel(DType.INT8, target), 6)
    for mr, vectors in target.packed_blocks:
        bytes_a, bytes_b = _bytes(mr)
        bytes_b = bytes_b[: vectors * LANES]
        a = _groups(_as_activations(bytes_a, target), group)
        b = np.stack([_groups(panel, group) for panel in bytes_b.reshape(vectors, LANES, K)])
        c = np.empty((mr, vectors * LANES), np.int32)
        _call(kernel, mr, a, b, len(a), c, c.strides[0])
        assert np.array_equal(c, bytes_a.astype(np.int64) @ bytes_b.astype(np.int64).T)


@jit
def _transpose_block(block: ArrayI32, out: ArrayI32) -> None:
    transpose_block(block.ctypes.data, block.strides[0], out.ctypes.data, out.strides[0])


def test_a_transposed_block() -> None:
    rows = np.random.default_rng(4).integers(-(2**31), 2**31, (LANES, 40), np.int32)
    out = np.zeros((LANES, 24), np.int32)
    _transpose_block(rows[:, 7:], out[:, 3:])
    assert np.array_equal(out[:, 3 : 3 + LANES], rows[:, 7 : 7 + LANES].T)
    assert not out[:, :3].any()
    assert not out[:, 3 + LANES :].any()
