"""Vector code against NumPy's and PyTorch's own, number by number."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it

from tests.support.precisions import precision_params
from worker.engines.chatterbox.kernels.jit import compiled
from worker.engines.chatterbox.kernels.simd.activations import gelu_row, gelu_tanh_row, mish_row, snake_row
from worker.engines.chatterbox.kernels.simd.emitter import LANES
from worker.engines.chatterbox.kernels.simd.gemm import TILE_COLUMNS, TILE_ROWS, tile_bytes_from, turned_block
from worker.engines.chatterbox.kernels.simd.rows import added_row, scaled_sums
from worker.engines.chatterbox.kernels.simd.softmax import ABREAST, exponentials, powers, scaled_scores
from worker.precision import Precision

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
def _gelu_tanh(numbers):  # type: ignore[no-untyped-def]
    gelu_tanh_row(numbers.ctypes.data, len(numbers))


@compiled
def _snake(numbers, frequencies, shares, out):  # type: ignore[no-untyped-def]
    snake_row(numbers.ctypes.data, frequencies.ctypes.data, shares.ctypes.data, len(numbers), out.ctypes.data)


@compiled
def _exponentials(scores, factor):  # type: ignore[no-untyped-def]
    return exponentials(scores.ctypes.data, factor, len(scores))


@compiled
def _powers(scores, most, factor, bits, out):  # type: ignore[no-untyped-def]
    return powers(scores.ctypes.data, most, factor, bits, len(scores), out.ctypes.data)


@compiled
def _scores(sums, scales, out):  # type: ignore[no-untyped-def]
    return scaled_scores(sums.ctypes.data, scales.ctypes.data, len(sums), out.ctypes.data)


@compiled
def _sums(sums, less, factor, scales, added, out):  # type: ignore[no-untyped-def]
    places = scales.ctypes.data, added.ctypes.data
    scaled_sums(sums.ctypes.data, less.ctypes.data, factor, *places, len(sums), out.ctypes.data)


@compiled
def _added(row, added, out):  # type: ignore[no-untyped-def]
    added_row(row.ctypes.data, added.ctypes.data, len(row), out.ctypes.data)


@compiled
def _tile(rows, columns, begin, out):  # type: ignore[no-untyped-def]
    steps, (size, across) = columns.shape[0], (rows.shape[1], out.strides[0])
    tile_bytes_from(
        rows.ctypes.data,
        size,
        columns.ctypes.data,
        columns.strides[0],
        steps,
        out.ctypes.data,
        across,
        begin.ctypes.data,
    )


@compiled
def _turned(block, out):  # type: ignore[no-untyped-def]
    turned_block(block.ctypes.data, block.strides[0], out.ctypes.data, out.strides[0])


@pytest.mark.parametrize(
    ("found", "expected", "differs"),
    [(_mish, F.mish, 2e-7), (_gelu, F.gelu, 3e-7), (_gelu_tanh, partial(F.gelu, approximate="tanh"), 3e-7)],
    ids=["mish", "gelu", "gelu-tanh"],
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
    scores = (spread * np.random.default_rng(2).standard_normal(ABREAST * LANES * 11)).astype(np.float32)
    numbers = scores.copy()
    total = _exponentials(numbers, np.float32(0.7))
    right = 2 ** ((scores.astype(np.float64) - scores.max()) * np.float64(np.float32(0.7)))
    # An exponent is a float32 itself, whose last digit counts the more the larger it is.
    assert np.all(np.abs(numbers - right) <= 1e-7 * (10 + np.ptp(scores)) * right + 1e-37)
    assert total == pytest.approx(right.sum(), rel=1e-6)


@pytest.mark.parametrize("factor", [1.0, 0.03, 2.5])
def test_powers_as_words(factor: float) -> None:
    """A word's half digit, and the polynomial's 3e-6."""
    scores = (np.random.default_rng(3).uniform(-25, 4, 1024) / factor).astype(np.float32)
    out = np.empty(1024, np.int16)
    total = _powers(scores, scores.max(), np.float32(factor), np.float32(12), out)
    right = 2 ** ((scores.astype(np.float64) - scores.max()) * np.float64(np.float32(factor)) + 12)
    assert np.all(np.abs(out - right) <= 0.5 + 1e-5 * right)
    assert total == int(out.astype(np.int64).sum())
    assert out.max() == 2**12


def test_scores_and_the_largest_of_them() -> None:
    draw = np.random.default_rng(5)
    sums, out = draw.integers(-(2**20), 2**20, 704, np.int32), np.empty(704, np.float32)
    scales = draw.uniform(1e-3, 1, 704).astype(np.float32)
    most = _scores(sums, scales, out)
    assert np.array_equal(out, sums.astype(np.float32) * scales)
    assert most == out.max()


def test_scores_that_are_all_below_zero() -> None:
    count = ABREAST * LANES
    sums, out = np.full(count, -7, np.int32), np.empty(count, np.float32)
    assert _scores(sums, np.full(count, 0.5, np.float32), out) == -3.5


def test_sums_scaled() -> None:
    draw = np.random.default_rng(6)
    sums, less = (draw.integers(-(2**22), 2**22, 64, np.int32) for _ in range(2))
    scales, added = (draw.standard_normal(64).astype(np.float32) for _ in range(2))
    out = np.empty(64, np.float32)
    _sums(sums, less, np.float32(0.01), scales, added, out)
    right = (sums - less).astype(np.float64) * np.float32(0.01) * scales + added
    assert np.allclose(out, right, rtol=1e-6, atol=1e-6 * np.abs(right).max())


def test_rows_added() -> None:
    row, added = (np.random.default_rng(seed).standard_normal(64).astype(np.float32) for seed in (7, 8))
    out = np.empty(64, np.float32)
    _added(row, added, out)
    assert np.array_equal(out, row + added)


@pytest.mark.parametrize("_precision", precision_params([Precision.INT8]))
def test_a_tile_of_bytes_that_begins_with_something(_precision: Precision) -> None:
    draw = np.random.default_rng(9)
    rows = draw.integers(0, 256, (TILE_ROWS, 32), np.uint8)
    columns = draw.integers(-127, 128, (8, TILE_COLUMNS, 4), np.int8)
    begin, out = draw.integers(-(2**20), 2**20, TILE_COLUMNS, np.int32), np.empty((TILE_ROWS, TILE_COLUMNS), np.int32)
    _tile(rows, columns, begin, out)
    products = np.einsum("rsb,scb->rc", rows.reshape(TILE_ROWS, 8, 4).astype(np.int64), columns.astype(np.int64))
    assert np.array_equal(out, products + begin)


def test_a_block_turned() -> None:
    rows = np.random.default_rng(4).integers(-(2**31), 2**31, (LANES, 40), np.int32)
    out = np.zeros((LANES, 24), np.int32)
    _turned(rows[:, 7:], out[:, 3:])
    assert np.array_equal(out[:, 3 : 3 + LANES], rows[:, 7 : 7 + LANES].T)
    assert not out[:, :3].any()
    assert not out[:, 3 + LANES :].any()
