"""Operations on one row of numbers: its largest magnitude, quantization, dequantization, products with a matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types

from worker.engines.chatterbox.kernels.simd.emitter import (
    F16X16,
    F32,
    F32X16,
    I8X16,
    I16X16,
    I32X16,
    LANES,
    VECTOR_BYTES,
    Emitter,
    f32x16,
    i32x16,
    simd_intrinsic,
    vector_offset,
)
from worker.engines.chatterbox.kernels.simd.gemm import NR
from worker.engines.chatterbox.kernels.simd.targets import NR_VECTORS


@simd_intrinsic(types.float32(types.intp, types.intp))
def abs_max(emitter: Emitter, row: Any, count: Any) -> Any:
    """The largest magnitude of `count` float32, a multiple of LANES."""

    def body(index: Any, carried: Sequence[Any]) -> list[Any]:
        magnitude = emitter.call("llvm.fabs.v16f32", F32X16, emitter.load(row, index, F32X16))
        return [emitter.maximum(carried[0], magnitude)]

    (maxima,) = emitter.loop(count, LANES, [f32x16(0.0)], body)
    return emitter.call("llvm.vector.reduce.fmax.v16f32", F32, maxima)


def _quantize(
    emitter: Emitter, row: Any, count: Any, inverse_scale: Any, zero_point: Any, out: Any, vector: Any
) -> None:
    """Compute out = round(row * inverse_scale) + zero_point of LANES float32 at a time, to a vector of that type."""
    builder = emitter.builder
    factors, zero_points = emitter.broadcast(inverse_scale), emitter.broadcast(zero_point)

    def body(index: Any, _: Sequence[Any]) -> list[Any]:
        scaled = builder.fmul(emitter.load(row, index, F32X16), factors)
        quantized = builder.add(emitter.round_to_int(scaled), zero_points)
        emitter.store(builder.trunc(quantized, vector), out, index, vector.element.width // 8)
        return []

    emitter.loop(count, LANES, [], body)


@simd_intrinsic(types.void(types.intp, types.intp, types.float32, types.int32, types.intp))
def quantize_int8(emitter: Emitter, row: Any, count: Any, inverse_scale: Any, zero_point: Any, out: Any) -> None:
    """Compute out = round(row * inverse_scale) + zero_point: `count` float32, a multiple of LANES, to bytes."""
    _quantize(emitter, row, count, inverse_scale, zero_point, out, I8X16)


@simd_intrinsic(types.void(types.intp, types.intp, types.float32, types.int32, types.intp))
def quantize_int16(emitter: Emitter, row: Any, count: Any, inverse_scale: Any, zero_point: Any, out: Any) -> None:
    """Like `quantize_int8`, to int16."""
    _quantize(emitter, row, count, inverse_scale, zero_point, out, I16X16)


@simd_intrinsic(types.void(*[types.intp] * 8))
def dequantize(  # noqa: PLR0917
    emitter: Emitter,
    sums: Any,
    rows: Any,
    corrections: Any,
    row_scales: Any,
    column_scales: Any,
    bias: Any,
    out: Any,
    out_bytes: Any,
) -> None:
    """Compute out = (sums - corrections) * row_scales * column_scales + bias: int32 (rows, NR) to float32.

    There is at least one row. The rows of `out` lie `out_bytes` apart.
    """
    builder = emitter.builder
    arrays = (corrections, I32X16), (column_scales, F32X16), (bias, F32X16)
    columns = [
        [emitter.load(array, vector_offset(array, number), kind) for array, kind in arrays]
        for number in range(NR_VECTORS)
    ]

    def body(row: Any, _: Sequence[Any]) -> list[Any]:
        row_sums = builder.add(sums, builder.mul(row, ir.Constant(row.type, NR * 4)))
        row_out = builder.add(out, builder.mul(row, out_bytes))
        factors = emitter.broadcast(emitter.load(row_scales, row, F32))
        for number, (correction, scales, biases) in enumerate(columns):
            offset = vector_offset(row, number)
            corrected = builder.sub(emitter.load(row_sums, offset, I32X16), correction)
            result = emitter.fma(builder.fmul(builder.sitofp(corrected, F32X16), factors), scales, biases)
            emitter.store(result, row_out, offset, 4)
        return []

    emitter.loop(rows, 1, [], body, unroll=2)


@simd_intrinsic(types.void(*[types.intp] * 4))
def add_bias(emitter: Emitter, row: Any, bias: Any, count: Any, out: Any) -> None:
    """Compute out = row + bias: `count` float32, a multiple of LANES."""

    def body(index: Any, _: Sequence[Any]) -> list[Any]:
        total = emitter.builder.fadd(emitter.load(row, index, F32X16), emitter.load(bias, index, F32X16))
        emitter.store(total, out, index, 4)
        return []

    emitter.loop(count, LANES, [], body)


@simd_intrinsic(types.void(types.intp, types.intp, types.intp, types.float32, types.intp))
def interleave_int16(emitter: Emitter, even: Any, odd: Any, count: Any, inverse_scale: Any, out: Any) -> None:
    """Quantize two rows of `count` float32 to int16 and interleave them: even[0], odd[0], even[1] and so on.

    `count` is a multiple of LANES.
    """
    builder, factors = emitter.builder, emitter.broadcast(inverse_scale)

    def body(index: Any, _: Sequence[Any]) -> list[Any]:
        low, high = (
            emitter.round_to_int(builder.fmul(emitter.load(row, index, F32X16), factors)) for row in (even, odd)
        )
        pairs = builder.or_(builder.and_(low, i32x16(0xFFFF)), builder.shl(high, i32x16(16)))
        emitter.store(pairs, out, index, 4)
        return []

    emitter.loop(count, LANES, [], body)


@simd_intrinsic(types.void(types.intp, types.intp, types.intp, types.float32, types.intp, types.intp, types.intp))
def interleave_halves(
    emitter: Emitter,
    rows: Any,
    row_bytes: Any,
    count: Any,
    inverse_scale: Any,
    low: Any,
    high: Any,
    panel_bytes: Any,
) -> None:
    """Quantize four rows of `count` float32 to numbers of ten bits, in two bytes each, and interleave their bytes.

    A number is low + 16 * high. In `low` and in `high`, the bytes of the four rows lie side by side, those of each
    LANES columns `panel_bytes` behind the ones before. `count` is a multiple of LANES.
    """
    builder, factors = emitter.builder, emitter.broadcast(inverse_scale)

    def side_by_side(numbers: Sequence[Any]) -> Any:
        total = i32x16(0)
        for place, vector in enumerate(numbers):
            byte = builder.shl(builder.and_(vector, i32x16(0xFF)), i32x16(8 * place))
            total = builder.or_(total, byte)
        return total

    def body(index: Any, _: Sequence[Any]) -> list[Any]:
        numbers = []
        for row in range(4):
            place = builder.add(rows, builder.mul(row_bytes, ir.Constant(row_bytes.type, row)))
            numbers.append(emitter.round_to_int(builder.fmul(emitter.load(place, index, F32X16), factors)))
        highs = [builder.ashr(builder.add(number, i32x16(8)), i32x16(4)) for number in numbers]
        lows = [builder.sub(number, builder.shl(top, i32x16(4))) for number, top in zip(numbers, highs, strict=True)]
        offset = builder.mul(builder.udiv(index, ir.Constant(index.type, LANES)), panel_bytes)
        zero = ir.Constant(index.type, 0)
        emitter.store(side_by_side(lows), builder.add(low, offset), zero, 4)
        emitter.store(side_by_side(highs), builder.add(high, offset), zero, 4)
        return []

    emitter.loop(count, LANES, [], body)


@simd_intrinsic(types.void(types.intp, types.float32, types.intp, types.intp))
def scale_sums(emitter: Emitter, sums: Any, factor: Any, count: Any, out: Any) -> None:
    """Compute out = sums * factor: `count` int32, a multiple of LANES, to float32."""
    factors = emitter.broadcast(factor)

    def body(index: Any, _: Sequence[Any]) -> list[Any]:
        number = emitter.builder.sitofp(emitter.load(sums, index, I32X16), F32X16)
        emitter.store(emitter.builder.fmul(number, factors), out, index, 4)
        return []

    emitter.loop(count, LANES, [], body)


@simd_intrinsic(types.void(types.intp, types.intp, types.intp, types.float32, types.intp))
def join_halves(emitter: Emitter, sums: Any, high_sums: Any, distance: Any, factor: Any, out: Any) -> None:
    """Join NR sums of products of halves: low weight times low value, and so on, to NR float32 times `factor`.

    `sums` are those of the weights' low bytes, `high_sums` of their high ones; in each, those of the values' low bytes
    come first, and of the high ones `distance` bytes behind.
    """
    builder, factors = emitter.builder, emitter.broadcast(factor)
    for number in range(NR_VECTORS):
        offset = vector_offset(sums, number)
        total = i32x16(0)
        for address, shift in ((sums, 0), (high_sums, 8)):
            low = emitter.load(address, offset, I32X16)
            high = emitter.load(builder.add(address, distance), offset, I32X16)
            joined = builder.add(low, builder.shl(high, i32x16(4)))
            total = builder.add(total, builder.shl(joined, i32x16(shift)))
        emitter.store(builder.fmul(builder.sitofp(total, F32X16), factors), out, offset, 4)


@simd_intrinsic(types.void(*[types.intp] * 3))
def widen_f16(emitter: Emitter, row: Any, count: Any, out: Any) -> None:
    """Convert `count` float16, a multiple of LANES, to float32."""

    def body(index: Any, _: Sequence[Any]) -> list[Any]:
        emitter.store(emitter.load_f32(row, index, F16X16), out, index, 4)
        return []

    emitter.loop(count, LANES, [], body)


@simd_intrinsic(types.void(*[types.intp] * 3))
def narrow_f16(emitter: Emitter, row: Any, count: Any, out: Any) -> None:
    """Round `count` float32, a multiple of LANES, to float16; what is too large becomes infinite."""

    def body(index: Any, _: Sequence[Any]) -> list[Any]:
        emitter.store(emitter.builder.fptrunc(emitter.load(row, index, F32X16), F16X16), out, index, 2)
        return []

    emitter.loop(count, LANES, [], body)


def _vector_matrix_product(stored: Any) -> Callable[..., Any]:
    @simd_intrinsic(types.void(*[types.intp] * 6))
    def product(emitter: Emitter, vector: Any, matrix: Any, row_bytes: Any, k: Any, n: Any, out: Any) -> None:
        builder = emitter.builder

        def block(first: Any, _: Sequence[Any]) -> list[Any]:
            start = builder.add(matrix, builder.mul(first, ir.Constant(first.type, _size(stored) // LANES)))

            def body(index: Any, totals: Sequence[Any]) -> list[Any]:
                number = emitter.broadcast(emitter.load(vector, index, F32))
                return _add_weighted(emitter, number, builder.add(start, builder.mul(index, row_bytes)), stored, totals)

            totals = emitter.loop(k, 1, [f32x16(0.0)] * NR_VECTORS, body)
            for number, total in enumerate(totals):
                emitter.store(total, out, builder.add(first, vector_offset(first, number)), 4)
            return []

        emitter.loop(n, NR, [], block)

    return product


vector_matrix_product = _vector_matrix_product(F32X16)
"""(vector, matrix, row_bytes, k, n, out): out[N] = vector[K] · matrix[K,N] in float32.

Rows of the matrix lie `row_bytes` apart. Computes NR columns at a time: reads and writes up to the next multiple of NR.
"""
vector_matrix_product_f16 = _vector_matrix_product(F16X16)
"""The same of a matrix of float16."""


def _accumulate_rows(stored: Any) -> Callable[..., Any]:
    @simd_intrinsic(types.void(*[types.intp] * 4))
    def accumulate(emitter: Emitter, weights: Any, rows: Any, k: Any, out: Any) -> None:
        builder = emitter.builder
        row_bytes = NR_VECTORS * _size(stored)

        def body(index: Any, totals: Sequence[Any]) -> list[Any]:
            weight = emitter.broadcast(emitter.load(weights, index, F32))
            place = builder.add(rows, builder.mul(index, ir.Constant(index.type, row_bytes)))
            return _add_weighted(emitter, weight, place, stored, totals)

        initial = [emitter.load(out, vector_offset(out, number), F32X16) for number in range(NR_VECTORS)]
        for number, total in enumerate(emitter.loop(k, 1, initial, body)):
            emitter.store(total, out, vector_offset(out, number), 4)

    return accumulate


accumulate_rows = _accumulate_rows(F32X16)
"""(weights, rows, k, out): out[NR] += weights[K] · rows[K,NR] in float32."""
accumulate_rows_f16 = _accumulate_rows(F16X16)
"""The same of rows of float16."""


def _add_weighted(emitter: Emitter, weight: Any, row: Any, stored: Any, totals: Sequence[Any]) -> list[Any]:
    """Add weight * row, NR floats, to the accumulators; prefetches what lies behind the row."""
    for line in range(0, NR_VECTORS * _size(stored), VECTOR_BYTES):
        emitter.prefetch(emitter.builder.add(row, ir.Constant(row.type, line)))
    return [
        emitter.fma(weight, emitter.load_f32(row, vector_offset(row, number), stored), total)
        for number, total in enumerate(totals)
    ]


def _size(stored: Any) -> int:
    """Bytes of a vector, F32X16 or F16X16."""
    return VECTOR_BYTES if stored is F32X16 else VECTOR_BYTES // 2
