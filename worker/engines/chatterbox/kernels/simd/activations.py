"""Activation functions of a row of float32, each in one pass over the row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numba import types

from worker.engines.chatterbox.kernels.simd.emitter import (
    F32X16,
    LANES,
    LOG2_E,
    MAX_EXPONENT,
    MIN_EXPONENT,
    Emitter,
    f32x16,
    simd_intrinsic,
)

_SINE = (-2.5052108e-8, 2.7557319e-6, -1.9841270e-4, 8.3333333e-3, -1.6666667e-1, 1.0)
"""sin(x) / x by powers of x**2 for x in [-pi/2, pi/2], to 6e-8: Taylor's, from the highest power down."""


@simd_intrinsic(types.void(*[types.intp] * 5))
def snake_row(emitter: Emitter, row: Any, frequencies: Any, scales: Any, count: Any, out: Any) -> None:
    """Snake: out = x + sin(x * frequency)**2 * scale of `count` float32, a multiple of LANES, of each array."""
    builder = emitter.builder

    def body(index: Any, _: Sequence[Any]) -> list[Any]:
        states = emitter.load(row, index, F32X16)
        angle = builder.fmul(states, emitter.load(frequencies, index, F32X16))
        # sin(x)**2 has the period pi, which is subtracted in two parts: one float32 holds too few of its digits.
        periods = emitter.call("llvm.rint.v16f32", F32X16, builder.fmul(angle, f32x16(0.31830988618)))
        angle = emitter.fma(periods, f32x16(-3.140625), angle)
        angle = emitter.fma(periods, f32x16(-9.67653589793e-4), angle)
        sine = emitter.polynomial(_SINE, builder.fmul(angle, angle))
        sine = builder.fmul(sine, angle)
        wave = builder.fmul(builder.fmul(sine, sine), emitter.load(scales, index, F32X16))
        emitter.store(builder.fadd(states, wave), out, index, 4)
        return []

    emitter.loop(count, LANES, [], body)


_MAX_MISH_EXPONENT = 30.0
"""Mish is its argument from here on, in powers of two; the square of 2**30 is still a finite float32."""


@simd_intrinsic(types.void(types.intp, types.intp))
def mish_row(emitter: Emitter, row: Any, count: Any) -> None:
    """Mish: x * tanh(log(1 + e**x)) of `count` float32, a multiple of LANES, in place.

    Computed without a logarithm: with n = e**x, it is x * (n**2 + 2n) / (n**2 + 2n + 2).
    """
    builder = emitter.builder

    def body(index: Any, _: Sequence[Any]) -> list[Any]:
        states = emitter.load(row, index, F32X16)
        exponent = builder.fmul(states, f32x16(LOG2_E))
        exponent = emitter.minimum(exponent, f32x16(_MAX_MISH_EXPONENT))
        power = emitter.exp2(emitter.maximum(exponent, f32x16(MIN_EXPONENT)))
        numerator = emitter.fma(power, power, builder.fadd(power, power))
        ratio = builder.fdiv(numerator, builder.fadd(numerator, f32x16(2.0)))
        emitter.store(builder.fmul(states, ratio), row, index, 4)
        return []

    emitter.loop(count, LANES, [], body)


_ERFC = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592, 0.0)
"""1 - erf(x), x >= 0, is e**-x**2 times this of 1 / (1 + 0.3275911 x), to 1.5e-7 (Abramowitz and Stegun, 7.1.26)."""
_MIN_TAIL_EXPONENT = -100.0
"""Of the tail's e**-x**2, as a power of two: products with a smaller one could be subnormal, which take a processor of
Intel's a hundred times as long."""


@simd_intrinsic(types.void(types.intp, types.intp))
def gelu_row(emitter: Emitter, row: Any, count: Any) -> None:
    """GELU: x * (1 + erf(x / sqrt(2))) / 2 of `count` float32, a multiple of LANES, in place."""
    builder = emitter.builder

    def body(index: Any, _: Sequence[Any]) -> list[Any]:
        states = emitter.load(row, index, F32X16)
        magnitude = builder.fmul(emitter.call("llvm.fabs.v16f32", F32X16, states), f32x16(0.7071067811865476))
        inverse = builder.fdiv(f32x16(1.0), emitter.fma(magnitude, f32x16(0.3275911), f32x16(1.0)))
        exponent = builder.fmul(builder.fmul(magnitude, magnitude), f32x16(-LOG2_E))
        power = emitter.exp2(emitter.maximum(exponent, f32x16(_MIN_TAIL_EXPONENT)))
        # The normal distribution's tail beyond |x|: the factor of a negative x, and 1 minus that of a positive x.
        tail = builder.fmul(builder.fmul(emitter.polynomial(_ERFC, inverse), power), f32x16(0.5))
        negative = builder.fcmp_ordered("<", states, f32x16(0.0))
        factor = builder.select(negative, tail, builder.fsub(f32x16(1.0), tail))
        emitter.store(builder.fmul(states, factor), row, index, 4)
        return []

    emitter.loop(count, LANES, [], body)


_TANH_FACTOR, _TANH_CUBE = 0.7978845608028654, 0.044715
"""The constants of GELU's tanh approximation, as in GPT-2: x * (1 + tanh(factor * (x + cube * x**3))) / 2."""


@simd_intrinsic(types.void(types.intp, types.intp))
def gelu_tanh_row(emitter: Emitter, row: Any, count: Any) -> None:
    """GELU's tanh approximation of `count` float32, a multiple of LANES, in place.

    With u, the argument of the tanh, it is x / (1 + e**-2u).
    """
    builder = emitter.builder

    def body(index: Any, _: Sequence[Any]) -> list[Any]:
        states = emitter.load(row, index, F32X16)
        cube = builder.fmul(builder.fmul(states, states), f32x16(_TANH_CUBE))
        argument = emitter.fma(cube, states, states)
        exponent = builder.fmul(argument, f32x16(-2 * _TANH_FACTOR * LOG2_E))
        emitter.store(_gated(emitter, states, exponent), row, index, 4)
        return []

    emitter.loop(count, LANES, [], body)


@simd_intrinsic(types.void(types.intp, types.intp))
def silu_row(emitter: Emitter, row: Any, count: Any) -> None:
    """SiLU: x / (1 + e**-x) of `count` float32, a multiple of LANES, in place."""

    def body(index: Any, _: Sequence[Any]) -> list[Any]:
        states = emitter.load(row, index, F32X16)
        exponent = emitter.builder.fmul(states, f32x16(-LOG2_E))
        emitter.store(_gated(emitter, states, exponent), row, index, 4)
        return []

    emitter.loop(count, LANES, [], body)


def _gated(emitter: Emitter, states: Any, exponent: Any) -> Any:
    """The quotient states / (1 + 2**exponent): times the logistic function of -exponent * log(2)."""
    power = emitter.exp2(emitter.minimum(emitter.maximum(exponent, f32x16(MIN_EXPONENT)), f32x16(MAX_EXPONENT)))
    return emitter.builder.fdiv(states, emitter.builder.fadd(power, f32x16(1.0)))
