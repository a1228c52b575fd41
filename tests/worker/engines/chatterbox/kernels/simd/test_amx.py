"""Products in matrix tiles against NumPy's, number by number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.support.tiles import needs_tiles
from worker.engines.chatterbox.kernels.jit import ArrayI32, ArrayI64, jit
from worker.engines.chatterbox.kernels.simd.amx import (
    TILE_NR,
    configure_tiles,
    multiply_16_rows,
    multiply_32_rows,
    release_tiles,
)

pytestmark = needs_tiles


@jit
def _multiply_16_rows(a: ArrayI64) -> None:
    configure_tiles()
    multiply_16_rows(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8])
    release_tiles()


@jit
def _multiply_32_rows(a: ArrayI64) -> None:
    configure_tiles()
    multiply_32_rows(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8])
    release_tiles()


@pytest.mark.parametrize(("rows", "multiply"), [(16, _multiply_16_rows), (32, _multiply_32_rows)])
@pytest.mark.parametrize("tiles", [1, 2, 7])
@pytest.mark.parametrize("panels_side_by_side", [False, True])
def test_a_block(rows: int, multiply: Callable[[ArrayI64], None], tiles: int, panels_side_by_side: bool) -> None:
    draw, k = np.random.default_rng(tiles), 64 * tiles
    a, b = draw.integers(0, 256, (rows, k + 64), np.uint8), draw.integers(-128, 128, (TILE_NR, k), np.int8)
    a[0], b[0], b[1], a[1] = 255, -128, 127, 0
    initial: ArrayI32 = draw.integers(-(2**20), 2**20, TILE_NR, np.int32)
    groups = b.reshape(2, 16, k // 4, 4).transpose(0, 2, 1, 3)
    layout: Any = np.ascontiguousarray(groups.transpose(1, 0, 2, 3) if panels_side_by_side else groups)
    first, second = layout.strides[:2]
    group, panel = (first, second) if panels_side_by_side else (second, first)
    c = np.zeros((rows, TILE_NR + 16), np.int32)
    places = [a.ctypes.data, a.strides[0], layout.ctypes.data, group, panel, tiles]
    multiply(np.array([*places, c.ctypes.data, c.strides[0], initial.ctypes.data]))
    assert np.array_equal(c[:, :TILE_NR], a[:, :k].astype(np.int64) @ b.astype(np.int64).T + initial)
    assert not c[:, TILE_NR:].any()
