"""What a softmax is made from: scores, their powers, and the sum of these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types

from worker.engines.chatterbox.kernels.simd.emitter import (
    FLOAT,
    FLOATS,
    INT,
    INTS,
    LANES,
    WORDS,
    Code,
    floats,
    in_compiled_code,
    ints,
    lanes,
    vector_code,
)

ABREAST = 4
"""Vectors that are compared with those before at a time: one by one, each would wait for the one before."""


def _largest(code: Code, count: Any, numbers: Callable[[Any], Any]) -> Any:
    """The largest of the vectors that `numbers` makes for 0, LANES, … below `count`."""

    def most(index: Any, carried: Sequence[Any]) -> list[Any]:
        places = [code.builder.add(index, lanes(index, number)) for number in range(ABREAST)]
        return [code.larger(before, numbers(place)) for before, place in zip(carried, places, strict=True)]

    one, *others = code.loop(count, ABREAST * LANES, [floats(-3e38)] * ABREAST, most)
    for other in others:
        one = code.larger(one, other)
    return code.call("llvm.vector.reduce.fmax.v16f32", FLOAT, one)


@in_compiled_code
def scaled_scores(_: Any, sums: Any, scales: Any, count: Any, out: Any) -> Any:
    """(sums, scales, count, out): whole numbers times their scales as float32, and the largest of them.

    `count` is a multiple of ABREAST vectors.
    """

    def emit(code: Code, sums: Any, scales: Any, count: Any, out: Any) -> Any:
        builder = code.builder

        def score(at: Any) -> Any:
            number = builder.fmul(builder.sitofp(code.load(sums, at, INTS), FLOATS), code.load(scales, at, FLOATS))
            code.store(number, out, at, 4)
            return number

        return _largest(code, count, score)

    return vector_code(types.float32(types.intp, types.intp, types.intp, types.intp), emit)


LEAST_POWER = -20.0
"""Powers of two are counted from there on; what is less rounds to nothing."""
_POLYNOMIAL = (0.00956051, 0.05591704, 0.2402498, 0.693122, 0.9999992)
"""2**x for x in [-0.5, 0.5], to 3e-6 of it; from the highest power of x down (fitted by least squares)."""


@in_compiled_code
def powers(_: Any, scores: Any, most: Any, factor: Any, bits: Any, count: Any, out: Any) -> Any:
    """(scores, most, factor, bits, count, out): 2**((x - most) * factor + bits) as words of 16 bits, and their sum."""

    def emit(code: Code, scores: Any, most: Any, factor: Any, bits: Any, count: Any, out: Any) -> Any:
        builder, by = code.builder, code.spread(factor)
        shift = code.spread(builder.fsub(bits, builder.fmul(most, factor)))

        def convert(index: Any, carried: Sequence[Any]) -> list[Any]:
            exponent = code.larger(code.fma(code.load(scores, index, FLOATS), by, shift), floats(LEAST_POWER))
            number = code.rounded(code.power_by(_POLYNOMIAL, exponent))
            code.store(builder.trunc(number, WORDS), out, index, 2)
            return [builder.add(carried[0], number)]

        (total,) = code.loop(count, LANES, [ints(0)], convert)
        return code.call("llvm.vector.reduce.add.v16i32", INT, total)

    arguments = (types.intp, types.float32, types.float32, types.float32, types.intp, types.intp)
    return vector_code(types.int32(*arguments), emit)


@in_compiled_code
def exponentials(_: Any, scores: Any, factor: Any, count: Any) -> Any:
    """(scores, factor, count): 2**((x - the largest x) * factor) of float32 in their place; what they add up to.

    `count` is a multiple of ABREAST vectors.
    """

    def emit(code: Code, scores: Any, factor: Any, count: Any) -> Any:
        builder, by = code.builder, code.spread(factor)
        largest = code.spread(_largest(code, count, lambda at: code.load(scores, at, FLOATS)))

        def convert(index: Any, carried: Sequence[Any]) -> list[Any]:
            exponent = builder.fmul(builder.fsub(code.load(scores, index, FLOATS), largest), by)
            number = code.power_of_two(code.larger(exponent, floats(-126.0)))
            code.store(number, scores, index, 4)
            return [builder.fadd(carried[0], number)]

        (totals,) = code.loop(count, LANES, [floats(0.0)], convert)
        parts = [builder.extract_element(totals, ir.Constant(INT, lane)) for lane in range(LANES)]
        total = parts[0]
        for part in parts[1:]:
            total = builder.fadd(total, part)
        return total

    return vector_code(types.float32(types.intp, types.float32, types.intp), emit)
