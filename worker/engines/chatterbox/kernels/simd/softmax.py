"""The parts of a softmax: scores and their maximum, powers of two and their sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types

from worker.engines.chatterbox.kernels.simd.emitter import (
    F32,
    F32X16,
    I8X64,
    I16X16,
    I32,
    I32X16,
    LANES,
    MIN_EXPONENT,
    Emitter,
    f32x16,
    i32x16,
    simd_intrinsic,
    vector_offset,
)

MAXIMA = 4
"""Vectors of running maxima: with a single one, each comparison would wait for the one before."""


def _maximum(emitter: Emitter, count: Any, vector_at: Callable[[Any], Any]) -> Any:
    """The largest number in the vectors that `vector_at` makes for 0, LANES, … below `count`."""

    def body(index: Any, maxima: Sequence[Any]) -> list[Any]:
        places = [emitter.builder.add(index, vector_offset(index, number)) for number in range(MAXIMA)]
        return [emitter.maximum(before, vector_at(place)) for before, place in zip(maxima, places, strict=True)]

    one, *others = emitter.loop(count, MAXIMA * LANES, [f32x16(-3e38)] * MAXIMA, body)
    for other in others:
        one = emitter.maximum(one, other)
    return emitter.call("llvm.vector.reduce.fmax.v16f32", F32, one)


@simd_intrinsic(types.float32(types.intp, types.intp, types.intp, types.intp))
def dequantize_scores(emitter: Emitter, sums: Any, scales: Any, count: Any, out: Any) -> Any:
    """Compute out = sums * scales: int32 to float32; returns the largest. `count` is a multiple of MAXIMA vectors."""
    builder = emitter.builder

    def scores(at: Any) -> Any:
        number = builder.fmul(builder.sitofp(emitter.load(sums, at, I32X16), F32X16), emitter.load(scales, at, F32X16))
        emitter.store(number, out, at, 4)
        return number

    return _maximum(emitter, count, scores)


MIN_INT16_EXPONENT = -20.0
"""Smaller exponents of two are raised to this one; the power rounds to zero either way."""
_EXP2_INT16 = (0.00956051, 0.05591704, 0.2402498, 0.693122, 0.9999992)
"""2**x for x in [-0.5, 0.5], to a share of 3e-6; from the highest power of x down (fitted by least squares)."""


def _exp2_integers(
    emitter: Emitter,
    scores: Any,
    maximum: Any,
    factor: Any,
    bits: Any,
    count: Any,
    vectors: int,
    store: Callable[[Sequence[Any], Any], None],
) -> Any:
    """Call `store` with round(2**((scores - maximum) * factor + bits)), int32, and their index; returns the sum.

    It gets so many `vectors` at a time.
    """
    builder, factors = emitter.builder, emitter.broadcast(factor)
    shift = emitter.broadcast(builder.fsub(bits, builder.fmul(maximum, factor)))

    def body(index: Any, carried: Sequence[Any]) -> list[Any]:
        numbers = []
        for number in range(vectors):
            place = builder.add(index, vector_offset(index, number))
            exponent = emitter.fma(emitter.load(scores, place, F32X16), factors, shift)
            exponent = emitter.maximum(exponent, f32x16(MIN_INT16_EXPONENT))
            numbers.append(emitter.round_to_int(emitter.exp2_by(_EXP2_INT16, exponent)))
        store(numbers, index)
        return [builder.add(total, number) for total, number in zip(carried, numbers, strict=True)]

    totals = emitter.loop(count, vectors * LANES, [i32x16(0)] * vectors, body, unroll=4 // vectors)
    total = totals[0]
    for other in totals[1:]:
        total = builder.add(total, other)
    return emitter.call("llvm.vector.reduce.add.v16i32", I32, total)


@simd_intrinsic(types.int32(types.intp, types.float32, types.float32, types.float32, types.intp, types.intp))
def exp2_int16(emitter: Emitter, scores: Any, maximum: Any, factor: Any, bits: Any, count: Any, out: Any) -> Any:
    """Compute out = round(2**((scores - maximum) * factor + bits)): float32 to int16; returns the sum.

    `count` is a multiple of LANES.
    """

    def store(numbers: Sequence[Any], index: Any) -> None:
        emitter.store(emitter.builder.trunc(numbers[0], I16X16), out, index, 2)

    return _exp2_integers(emitter, scores, maximum, factor, bits, count, 1, store)


@simd_intrinsic(
    types.int32(types.intp, types.float32, types.float32, types.float32, types.intp, types.intp, types.intp)
)
def exp2_halves(
    emitter: Emitter, scores: Any, maximum: Any, factor: Any, bits: Any, count: Any, low: Any, high: Any
) -> Any:
    """The same numbers as those of `exp2_int16`, their low bytes to `low` and their high ones to `high`.

    `count` is a multiple of two vectors: one shuffle of two vectors' bytes takes the place of four conversions.
    """
    builder = emitter.builder
    low_bytes, high_bytes = ([4 * lane + byte for lane in range(2 * LANES)] for byte in (0, 1))

    def store(numbers: Sequence[Any], index: Any) -> None:
        one, other = (builder.bitcast(number, I8X64) for number in numbers)
        for places, address in ((low_bytes, low), (high_bytes, high)):
            mask = ir.Constant(ir.VectorType(I32, len(places)), places)
            emitter.store(builder.shuffle_vector(one, other, mask), address, index, 1)

    return _exp2_integers(emitter, scores, maximum, factor, bits, count, 2, store)


@simd_intrinsic(types.float32(types.intp, types.float32, types.intp))
def exp2_f32(emitter: Emitter, scores: Any, factor: Any, count: Any) -> Any:
    """2**((scores - their maximum) * factor) of float32 in place; returns the sum.

    `count` is a multiple of MAXIMA vectors.
    """
    builder, factors = emitter.builder, emitter.broadcast(factor)
    maximum = emitter.broadcast(_maximum(emitter, count, lambda at: emitter.load(scores, at, F32X16)))

    def body(index: Any, carried: Sequence[Any]) -> list[Any]:
        exponent = builder.fmul(builder.fsub(emitter.load(scores, index, F32X16), maximum), factors)
        number = emitter.exp2(emitter.maximum(exponent, f32x16(MIN_EXPONENT)))
        emitter.store(number, scores, index, 4)
        return [builder.fadd(carried[0], number)]

    (totals,) = emitter.loop(count, LANES, [f32x16(0.0)], body)
    parts = [builder.extract_element(totals, ir.Constant(I32, lane)) for lane in range(LANES)]
    total = parts[0]
    for part in parts[1:]:
        total = builder.fadd(total, part)
    return total
