"""Operations on one row of numbers: its largest magnitude, quantization, dequantization, products with a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types

from worker.engines.chatterbox.kernels.simd.emitter import (
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


@simd_intrinsic(types.void(types.intp, types.intp, types.float32, *[types.intp] * 4))
def dequantize(
    emitter: Emitter, sums: Any, corrections: Any, row_scale: Any, column_scales: Any, bias: Any, count: Any, out: Any
) -> None:
    """Compute out = (sums - corrections) * row_scale * column_scales + bias: int32 to float32.

    `count` is a multiple of LANES.
    """
    builder, factors = emitter.builder, emitter.broadcast(row_scale)

    def body(index: Any, _: Sequence[Any]) -> list[Any]:
        corrected = builder.sub(emitter.load(sums, index, I32X16), emitter.load(corrections, index, I32X16))
        number = builder.fmul(builder.sitofp(corrected, F32X16), factors)
        number = emitter.fma(number, emitter.load(column_scales, index, F32X16), emitter.load(bias, index, F32X16))
        emitter.store(number, out, index, 4)
        return []

    emitter.loop(count, LANES, [], body)


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


@simd_intrinsic(types.void(*[types.intp] * 6))
def vector_matrix_product(emitter: Emitter, vector: Any, matrix: Any, row_bytes: Any, k: Any, n: Any, out: Any) -> None:
    """out[N] = vector[K] · matrix[K,N] in float32; rows of the matrix lie `row_bytes` apart.

    Computes NR columns at a time: reads and writes up to the next multiple of NR.
    """
    builder = emitter.builder

    def block(first: Any, _: Sequence[Any]) -> list[Any]:
        start = builder.add(matrix, builder.mul(first, ir.Constant(first.type, 4)))

        def body(index: Any, totals: Sequence[Any]) -> list[Any]:
            number = emitter.broadcast(emitter.load(vector, index, F32))
            return _add_weighted(emitter, number, builder.add(start, builder.mul(index, row_bytes)), totals)

        totals = emitter.loop(k, 1, [f32x16(0.0)] * NR_VECTORS, body)
        for number, total in enumerate(totals):
            emitter.store(total, out, builder.add(first, vector_offset(first, number)), 4)
        return []

    emitter.loop(n, NR, [], block)


@simd_intrinsic(types.void(*[types.intp] * 4))
def accumulate_rows(emitter: Emitter, weights: Any, rows: Any, k: Any, out: Any) -> None:
    """out[NR] += weights[K] · rows[K,NR] in float32."""
    builder = emitter.builder

    def body(index: Any, totals: Sequence[Any]) -> list[Any]:
        weight = emitter.broadcast(emitter.load(weights, index, F32))
        place = builder.add(rows, builder.mul(index, ir.Constant(index.type, NR * 4)))
        return _add_weighted(emitter, weight, place, totals)

    initial = [emitter.load(out, vector_offset(out, number), F32X16) for number in range(NR_VECTORS)]
    for number, total in enumerate(emitter.loop(k, 1, initial, body)):
        emitter.store(total, out, vector_offset(out, number), 4)


def _add_weighted(emitter: Emitter, weight: Any, row: Any, totals: Sequence[Any]) -> list[Any]:
    """Add weight * row, NR float32, to the accumulators; prefetches what lies behind the row."""
    for number in range(NR_VECTORS):
        emitter.prefetch(emitter.builder.add(row, ir.Constant(row.type, VECTOR_BYTES * number)))
    return [
        emitter.fma(weight, emitter.load(row, vector_offset(row, number), F32X16), total)
        for number, total in enumerate(totals)
    ]
