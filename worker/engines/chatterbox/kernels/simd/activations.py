"""Activations: a row of float32 through a function, in one passage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numba import types

from worker.engines.chatterbox.kernels.simd.emitter import FLOATS, LANES, Code, floats, in_compiled_code, vector_code

_SINE = (-2.5052108e-8, 2.7557319e-6, -1.9841270e-4, 8.3333333e-3, -1.6666667e-1, 1.0)
"""sin(x) / x by powers of x**2 for x in [-pi/2, pi/2], to 6e-8: Taylor's, from the highest power down."""


@in_compiled_code
def snake_row(_: Any, row: Any, frequencies: Any, shares: Any, count: Any, out: Any) -> Any:
    """(row, frequencies, shares, count, out): x + sin(x * frequency)**2 * share, `count` times, a multiple of LANES."""

    def emit(code: Code, row: Any, frequencies: Any, shares: Any, count: Any, out: Any) -> None:
        builder = code.builder

        def convert(index: Any, _: Sequence[Any]) -> list[Any]:
            states = code.load(row, index, FLOATS)
            angle = builder.fmul(states, code.load(frequencies, index, FLOATS))
            # A sine's square has the period pi, of which float32 holds but the first digits.
            turns = code.call("llvm.rint.v16f32", FLOATS, builder.fmul(angle, floats(0.31830988618)))
            angle = code.fma(turns, floats(-3.140625), angle)
            angle = code.fma(turns, floats(-9.67653589793e-4), angle)
            sine = code.polynomial(_SINE, builder.fmul(angle, angle))
            sine = builder.fmul(sine, angle)
            wave = builder.fmul(builder.fmul(sine, sine), code.load(shares, index, FLOATS))
            code.store(builder.fadd(states, wave), out, index, 4)
            return []

        code.loop(count, LANES, [], convert)

    return vector_code(types.void(*[types.intp] * 5), emit)


_MOST_EXPONENT = 30.0
"""Of two. Beyond it Mish is its argument, which may be multiplied with the power's square and still be a number."""


@in_compiled_code
def mish_row(_: Any, row: Any, count: Any) -> Any:
    """(row, count): x * tanh(log(1 + e**x)) of float32 in their place, `count` times, a multiple of LANES.

    Without a logarithm: of n = e**x, it is x * (n**2 + 2n) / (n**2 + 2n + 2).
    """

    def emit(code: Code, row: Any, count: Any) -> None:
        builder = code.builder

        def convert(index: Any, _: Sequence[Any]) -> list[Any]:
            states = code.load(row, index, FLOATS)
            exponent = builder.fmul(states, floats(_BITS))
            exponent = code.smaller(exponent, floats(_MOST_EXPONENT))
            power = code.power_of_two(code.larger(exponent, floats(-126.0)))
            part = code.fma(power, power, builder.fadd(power, power))
            share = builder.fdiv(part, builder.fadd(part, floats(2.0)))
            code.store(builder.fmul(states, share), row, index, 4)
            return []

        code.loop(count, LANES, [], convert)

    return vector_code(types.void(types.intp, types.intp), emit)


_BITS = 1.4426950408889634
"""e to the x is 2 to so many x."""
_ERROR_FUNCTION = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592, 0.0)
"""1 - erf(x), x >= 0, is e**-x**2 times this of 1 / (1 + 0.3275911 x), to 1.5e-7 (Abramowitz and Stegun, 7.1.26)."""


@in_compiled_code
def gelu_row(_: Any, row: Any, count: Any) -> Any:
    """(row, count): x * (1 + erf(x / sqrt(2))) / 2 of float32 in their place, `count` times, a multiple of LANES."""

    def emit(code: Code, row: Any, count: Any) -> None:
        builder = code.builder

        def convert(index: Any, _: Sequence[Any]) -> list[Any]:
            states = code.load(row, index, FLOATS)
            size = builder.fmul(code.call("llvm.fabs.v16f32", FLOATS, states), floats(0.7071067811865476))
            inverse = builder.fdiv(floats(1.0), code.fma(size, floats(0.3275911), floats(1.0)))
            exponent = builder.fmul(builder.fmul(size, size), floats(-_BITS))
            power = code.power_of_two(code.larger(exponent, floats(-126.0)))
            # Half of what erf lacks to 1 of the number without its sign: the share that the negative number keeps.
            lost = builder.fmul(builder.fmul(code.polynomial(_ERROR_FUNCTION, inverse), power), floats(0.5))
            negative = builder.fcmp_ordered("<", states, floats(0.0))
            share = builder.select(negative, lost, builder.fsub(floats(1.0), lost))
            code.store(builder.fmul(states, share), row, index, 4)
            return []

        code.loop(count, LANES, [], convert)

    return vector_code(types.void(types.intp, types.intp), emit)


_TANH_FACTOR, _TANH_CUBE = 0.7978845608028654, 0.044715
"""tanh-GELU's, of upstream's GPT-2: x * (1 + tanh(factor * (x + cube * x**3))) / 2."""


@in_compiled_code
def gelu_tanh_row(_: Any, row: Any, count: Any) -> Any:
    """(row, count): the approximation of GELU by a tanh of float32 in their place, `count` times, a multiple of LANES.

    Of the tanh's argument u it is x / (1 + e**-2u).
    """

    def emit(code: Code, row: Any, count: Any) -> None:
        builder = code.builder

        def convert(index: Any, _: Sequence[Any]) -> list[Any]:
            states = code.load(row, index, FLOATS)
            cube = builder.fmul(builder.fmul(states, states), floats(_TANH_CUBE))
            argument = code.fma(cube, states, states)
            exponent = code.larger(builder.fmul(argument, floats(-2 * _TANH_FACTOR * _BITS)), floats(-126.0))
            power = code.power_of_two(code.smaller(exponent, floats(126.0)))
            code.store(builder.fdiv(states, builder.fadd(power, floats(1.0))), row, index, 4)
            return []

        code.loop(count, LANES, [], convert)

    return vector_code(types.void(types.intp, types.intp), emit)
