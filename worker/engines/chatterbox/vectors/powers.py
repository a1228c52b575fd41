"""What a softmax is made from: scores, their powers, and the sum of these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types

from worker.engines.chatterbox.vectors.code import (
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
    vector_code,
)


@in_compiled_code
def scaled_scores(_: Any, sums: Any, less: Any, scales: Any, factor: Any, count: Any, out: Any) -> Any:
    """(sums, less, scales, factor, count, out): (sums - less) * scales * factor as float32, and the largest of them."""

    def emit(code: Code, sums: Any, less: Any, scales: Any, factor: Any, count: Any, out: Any) -> Any:
        builder, by = code.builder, code.spread(factor)

        def convert(index: Any, carried: Sequence[Any]) -> list[Any]:
            difference = builder.sub(code.load(sums, index, INTS), code.load(less, index, INTS))
            scale = builder.fmul(code.load(scales, index, FLOATS), by)
            score = builder.fmul(builder.sitofp(difference, FLOATS), scale)
            code.store(score, out, index, 4)
            return [code.call("llvm.maxnum.v16f32", FLOATS, carried[0], score)]

        (largest,) = code.loop(count, LANES, [floats(-3e38)], convert)
        return code.call("llvm.vector.reduce.fmax.v16f32", FLOAT, largest)

    arguments = (types.intp, types.intp, types.intp, types.float32, types.intp, types.intp)
    return vector_code(types.float32(*arguments), emit)


LEAST_POWER = -20.0
"""Powers of two are counted from there on; what is less rounds to nothing."""
_POLYNOMIAL = (0.0135557, 0.0520323, 0.241379, 0.693032, 1.0)
"""2**x for x in [0, 1), to 4e-6 of it; from the highest power of x down (fitted by least squares, see the tests)."""


@in_compiled_code
def powers(_: Any, exponents: Any, most: Any, bits: Any, count: Any, out: Any) -> Any:
    """(exponents, most, bits, count, out): 2**(x - most + bits) of float32 as words of 16 bits, and their sum."""

    def emit(code: Code, exponents: Any, most: Any, bits: Any, count: Any, out: Any) -> Any:
        builder = code.builder
        shift = code.spread(builder.fsub(bits, most))

        def convert(index: Any, carried: Sequence[Any]) -> list[Any]:
            exponent = builder.fadd(code.load(exponents, index, FLOATS), shift)
            exponent = code.call("llvm.maxnum.v16f32", FLOATS, exponent, floats(LEAST_POWER))
            whole = code.call("llvm.floor.v16f32", FLOATS, exponent)
            power = code.polynomial(_POLYNOMIAL, builder.fsub(exponent, whole))
            number = code.rounded(code.doubled(power, whole))
            code.store(builder.trunc(number, WORDS), out, index, 2)
            return [builder.add(carried[0], number)]

        (total,) = code.loop(count, LANES, [ints(0)], convert)
        return code.call("llvm.vector.reduce.add.v16i32", INT, total)

    arguments = (types.intp, types.float32, types.float32, types.intp, types.intp)
    return vector_code(types.int32(*arguments), emit)


@in_compiled_code
def exponentials(_: Any, scores: Any, factor: Any, count: Any) -> Any:
    """(scores, factor, count): 2**((x - the largest x) * factor) of float32 in their place; what they add up to.

    `count` is a multiple of LANES.
    """

    def emit(code: Code, scores: Any, factor: Any, count: Any) -> Any:
        builder, by = code.builder, code.spread(factor)

        def most(index: Any, carried: Sequence[Any]) -> list[Any]:
            return [code.call("llvm.maxnum.v16f32", FLOATS, carried[0], code.load(scores, index, FLOATS))]

        (largest,) = code.loop(count, LANES, [floats(-3e38)], most)
        largest = code.spread(code.call("llvm.vector.reduce.fmax.v16f32", FLOAT, largest))

        def convert(index: Any, carried: Sequence[Any]) -> list[Any]:
            exponent = builder.fmul(builder.fsub(code.load(scores, index, FLOATS), largest), by)
            number = code.power_of_two(code.call("llvm.maxnum.v16f32", FLOATS, exponent, floats(-126.0)))
            code.store(number, scores, index, 4)
            return [builder.fadd(carried[0], number)]

        (totals,) = code.loop(count, LANES, [floats(0.0)], convert)
        lanes = [builder.extract_element(totals, ir.Constant(INT, lane)) for lane in range(LANES)]
        total = lanes[0]
        for lane in lanes[1:]:
            total = builder.fadd(total, lane)
        return total

    return vector_code(types.float32(types.intp, types.float32, types.intp), emit)
