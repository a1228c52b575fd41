"""The few inner loops that no library has, written in LLVM's vectors of 512 bits: 16 numbers at a time, for AVX-512.

Numba compiles Python to machine code but knows neither vectors nor the processor's dot products of bytes (VNNI).
What is here are functions for `attention_int8`, `rows_int8` and `attention_decode` to call from within code that Numba
compiles. They take addresses and counts, and check nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
"""Numbers of 32 bits in a vector."""
TILE_ROWS, TILE_VECTORS = 6, 4
"""A tile's sums take 24 of the 32 vector registers, its operands five."""
TILE_COLUMNS = TILE_VECTORS * LANES

_intrinsic: Callable[[Callable[..., Any]], Any] = intrinsic

_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FLOATS, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)
_WORDS, _BYTES = ir.VectorType(ir.IntType(16), LANES), ir.VectorType(ir.IntType(8), LANES)


class _Code:
    """Emits instructions at the builder's place."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def call(self, name: str, result: Any, *arguments: Any) -> Any:
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), arguments)

    def pointer(self, address: Any, offset: Any, size: int, kind: Any) -> Any:
        """The place of what stands `offset` items of `size` bytes behind an address."""
        constant = ir.Constant(address.type, size)
        place = self.builder.add(address, self.builder.mul(offset, constant))
        return self.builder.inttoptr(place, kind.as_pointer())

    def load(self, address: Any, offset: Any, kind: Any) -> Any:
        """What stands so many numbers of 32 bits behind an address."""
        return self.builder.load(self.pointer(address, offset, 4, kind), align=4)

    def store(self, value: Any, address: Any, offset: Any, size: int) -> None:
        self.builder.store(value, self.pointer(address, offset, size, value.type), align=size)

    def spread(self, number: Any) -> Any:
        """A vector of one number."""
        kind = ir.VectorType(number.type, LANES)
        one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(_INT, 0))
        return self.builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), ir.Constant(_INTS, [0] * LANES))

    def rounded(self, vector: Any) -> Any:
        """To the nearest whole numbers, as integers of 32 bits."""
        return self.builder.fptosi(self.call("llvm.rint.v16f32", _FLOATS, vector), _INTS)

    def loop(
        self, count: Any, step: int, begin: Sequence[Any], body: Callable[[Any, Sequence[Any]], Sequence[Any]]
    ) -> Sequence[Any]:
        """Run `body` for 0, step, … below `count`, at least once; it turns what is carried along into what is next."""
        builder = self.builder
        before, inside, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
        builder.branch(inside)
        builder.position_at_end(inside)
        index = builder.phi(count.type)
        index.add_incoming(ir.Constant(count.type, 0), before)
        carried = [builder.phi(value.type) for value in begin]
        for phi, value in zip(carried, begin, strict=True):
            phi.add_incoming(value, before)
        results = body(index, carried)
        following = builder.add(index, ir.Constant(count.type, step))
        index.add_incoming(following, builder.block)
        for phi, value in zip(carried, results, strict=True):
            phi.add_incoming(value, builder.block)
        builder.cbranch(builder.icmp_signed("<", following, count), inside, after)
        builder.position_at_end(after)
        return results


def _floats(value: float) -> Any:
    return ir.Constant(_FLOATS, [value] * LANES)


def _ints(value: int) -> Any:
    return ir.Constant(_INTS, [value] * LANES)


def _vector_code(signature: Any, emit: Callable[..., Any]) -> Any:
    """What Numba compiles a call to: `emit` gets a `_Code` and the arguments, and gives the result or None."""

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        result = emit(_Code(builder), *arguments)
        return context.get_dummy_value() if result is None else result

    return signature, generate


def _tile(multiply: Callable[[_Code, Any, Any, Any], Any], lane: Any, vector: Any) -> Any:
    """Sums of products of a block of rows with a block of columns (see `tile_bytes`).

    `multiply` adds to a vector of sums what `lane`, of one row, and a `vector` of columns make.
    """

    def emit(
        code: _Code, rows: Any, row_bytes: Any, columns: Any, column_bytes: Any, steps: Any, out: Any, out_bytes: Any
    ) -> None:
        builder = code.builder

        def below(address: Any, number: int, size: Any) -> Any:
            return builder.add(address, builder.mul(size, ir.Constant(size.type, number)))

        starts = [below(rows, number, row_bytes) for number in range(TILE_ROWS)]

        def step(index: Any, sums: Sequence[Any]) -> list[Any]:
            place = builder.add(columns, builder.mul(index, column_bytes))
            beside = [code.load(place, _lanes(place, number), vector) for number in range(TILE_VECTORS)]
            results = []
            for number, start in enumerate(starts):
                one = code.spread(code.load(start, index, lane))
                for column, its in enumerate(beside):
                    results.append(multiply(code, sums[TILE_VECTORS * number + column], one, its))
            return results

        zero = ir.Constant(vector, [0] * LANES)
        sums = code.loop(steps, 1, [zero] * (TILE_ROWS * TILE_VECTORS), step)
        for number, total in enumerate(sums):
            row = below(out, number // TILE_VECTORS, out_bytes)
            code.store(total, row, _lanes(row, number % TILE_VECTORS), 4)

    @_intrinsic
    def tile(
        _: Any, rows: Any, row_bytes: Any, columns: Any, column_bytes: Any, steps: Any, out: Any, out_bytes: Any
    ) -> Any:
        return _vector_code(types.void(*[types.intp] * 7), emit)

    return tile


def _dot(name: str) -> Callable[[_Code, Any, Any, Any], Any]:
    """A processor's own product of several small numbers in each lane."""
    return lambda code, total, one, column: code.call(name, _INTS, total, one, column)


tile_bytes = _tile(_dot("llvm.x86.avx512.vpdpbusd.512"), _INT, _INTS)
"""(rows, row_bytes, columns, column_bytes, steps, out, out_bytes): TILE_ROWS rows of TILE_COLUMNS sums, int32.

A step multiplies four unsigned bytes of each row with four signed bytes of each column, which lie side by side; from a
step's columns to the next one's are `column_bytes`.
"""
tile_words = _tile(_dot("llvm.x86.avx512.vpdpwssd.512"), _INT, _INTS)
"""The same of two signed words of 16 bits a step."""
tile_floats = _tile(
    lambda code, total, one, column: code.call("llvm.fma.v16f32", _FLOATS, one, column, total), _FLOAT, _FLOATS
)
"""The same of one float32 a step, into float32."""


@_intrinsic
def largest(_: Any, row: Any, count: Any) -> Any:
    """(row, count): the largest of `count` float32, a multiple of LANES, without their signs."""

    def emit(code: _Code, row: Any, count: Any) -> Any:
        def most(index: Any, carried: Sequence[Any]) -> list[Any]:
            size = code.call("llvm.fabs.v16f32", _FLOATS, code.load(row, index, _FLOATS))
            return [code.call("llvm.maxnum.v16f32", _FLOATS, carried[0], size)]

        (most_of_all,) = code.loop(count, LANES, [_floats(0.0)], most)
        return code.call("llvm.vector.reduce.fmax.v16f32", _FLOAT, most_of_all)

    return _vector_code(types.float32(types.intp, types.intp), emit)


@_intrinsic
def row_bytes(_: Any, row: Any, count: Any, scale: Any, middle: Any, out: Any) -> Any:
    """(row, count, scale, middle, out): `count` float32, a multiple of LANES, scaled, as bytes around a middle."""

    def emit(code: _Code, row: Any, count: Any, scale: Any, middle: Any, out: Any) -> None:
        builder, by, around = code.builder, code.spread(scale), code.spread(middle)

        def convert(index: Any, _: Sequence[Any]) -> list[Any]:
            whole = builder.add(code.rounded(builder.fmul(code.load(row, index, _FLOATS), by)), around)
            code.store(builder.trunc(whole, _BYTES), out, index, 1)
            return []

        code.loop(count, LANES, [], convert)

    return _vector_code(types.void(types.intp, types.intp, types.float32, types.int32, types.intp), emit)


@_intrinsic
def interleaved_rows(_: Any, one: Any, other: Any, count: Any, scale: Any, out: Any) -> Any:
    """(one, other, count, scale, out): words of 16 bits of two rows of float32 times `scale`, in turns."""

    def emit(code: _Code, one: Any, other: Any, count: Any, scale: Any, out: Any) -> None:
        builder, factor = code.builder, code.spread(scale)

        def convert(index: Any, _: Sequence[Any]) -> list[Any]:
            low, high = (code.rounded(builder.fmul(code.load(row, index, _FLOATS), factor)) for row in (one, other))
            pairs = builder.or_(builder.and_(low, _ints(0xFFFF)), builder.shl(high, _ints(16)))
            code.store(pairs, out, index, 4)
            return []

        code.loop(count, LANES, [], convert)

    return _vector_code(types.void(types.intp, types.intp, types.intp, types.float32, types.intp), emit)


@_intrinsic
def scaled_scores(_: Any, sums: Any, less: Any, scales: Any, factor: Any, count: Any, out: Any) -> Any:
    """(sums, less, scales, factor, count, out): (sums - less) * scales * factor as float32, and the largest of them."""

    def emit(code: _Code, sums: Any, less: Any, scales: Any, factor: Any, count: Any, out: Any) -> Any:
        builder, by = code.builder, code.spread(factor)

        def convert(index: Any, carried: Sequence[Any]) -> list[Any]:
            difference = builder.sub(code.load(sums, index, _INTS), code.load(less, index, _INTS))
            scale = builder.fmul(code.load(scales, index, _FLOATS), by)
            score = builder.fmul(builder.sitofp(difference, _FLOATS), scale)
            code.store(score, out, index, 4)
            return [code.call("llvm.maxnum.v16f32", _FLOATS, carried[0], score)]

        (largest,) = code.loop(count, LANES, [_floats(-3e38)], convert)
        return code.call("llvm.vector.reduce.fmax.v16f32", _FLOAT, largest)

    arguments = (types.intp, types.intp, types.intp, types.float32, types.intp, types.intp)
    return _vector_code(types.float32(*arguments), emit)


LEAST_POWER = -20.0
"""Powers of two are counted from there on; what is less rounds to nothing."""
_POLYNOMIAL = (0.0135557, 0.0520323, 0.241379, 0.693032, 1.0)
"""2**x for x in [0, 1), to 4e-6 of it; from the highest power of x down (fitted by least squares, see the tests)."""


@_intrinsic
def powers(_: Any, exponents: Any, most: Any, bits: Any, count: Any, out: Any) -> Any:
    """(exponents, most, bits, count, out): 2**(x - most + bits) of float32 as words of 16 bits, and their sum."""

    def emit(code: _Code, exponents: Any, most: Any, bits: Any, count: Any, out: Any) -> Any:
        builder = code.builder
        shift = code.spread(builder.fsub(bits, most))

        def convert(index: Any, carried: Sequence[Any]) -> list[Any]:
            exponent = builder.fadd(code.load(exponents, index, _FLOATS), shift)
            exponent = code.call("llvm.maxnum.v16f32", _FLOATS, exponent, _floats(LEAST_POWER))
            whole = code.call("llvm.floor.v16f32", _FLOATS, exponent)
            part, power = builder.fsub(exponent, whole), _floats(_POLYNOMIAL[0])
            for coefficient in _POLYNOMIAL[1:]:
                power = code.call("llvm.fma.v16f32", _FLOATS, power, part, _floats(coefficient))
            # A float's exponent is in its bits 23 to 30, counted from 127.
            scale = builder.shl(builder.add(builder.fptosi(whole, _INTS), _ints(127)), _ints(23))
            number = code.rounded(builder.fmul(power, builder.bitcast(scale, _FLOATS)))
            code.store(builder.trunc(number, _WORDS), out, index, 2)
            return [builder.add(carried[0], number)]

        (total,) = code.loop(count, LANES, [_ints(0)], convert)
        return code.call("llvm.vector.reduce.add.v16i32", _INT, total)

    arguments = (types.intp, types.float32, types.float32, types.intp, types.intp)
    return _vector_code(types.int32(*arguments), emit)


@_intrinsic
def column_products(_: Any, numbers: Any, columns: Any, row_bytes: Any, rows: Any, count: Any, out: Any) -> Any:
    """(numbers, columns, row_bytes, rows, count, out): each of `count` columns of a float32 matrix times `numbers`.

    Works on TILE_COLUMNS columns at a time: so many may be read, and written, past the last.
    """

    def emit(code: _Code, numbers: Any, columns: Any, row_bytes: Any, rows: Any, count: Any, out: Any) -> None:
        builder = code.builder

        def block(first: Any, _: Sequence[Any]) -> list[Any]:
            start = builder.add(columns, builder.mul(first, ir.Constant(first.type, 4)))

            def row(index: Any, sums: Sequence[Any]) -> list[Any]:
                number = code.spread(code.load(numbers, index, _FLOAT))
                place = builder.add(start, builder.mul(index, row_bytes))
                return [
                    code.call(
                        "llvm.fma.v16f32", _FLOATS, number, code.load(place, _lanes(place, vector), _FLOATS), total
                    )
                    for vector, total in enumerate(sums)
                ]

            sums = code.loop(rows, 1, [_floats(0.0)] * TILE_VECTORS, row)
            for vector, total in enumerate(sums):
                code.store(total, out, builder.add(first, _lanes(first, vector)), 4)
            return []

        code.loop(count, TILE_COLUMNS, [], block)

    return _vector_code(types.void(*[types.intp] * 6), emit)


@_intrinsic
def weighted_rows(_: Any, weights: Any, rows: Any, count: Any, out: Any) -> Any:
    """(weights, rows, count, out): rows of TILE_COLUMNS float32, each times its weight, added to what is in `out`."""

    def emit(code: _Code, weights: Any, rows: Any, count: Any, out: Any) -> None:
        builder = code.builder

        def row(index: Any, sums: Sequence[Any]) -> list[Any]:
            weight = code.spread(code.load(weights, index, _FLOAT))
            place = builder.add(rows, builder.mul(index, ir.Constant(index.type, TILE_COLUMNS * 4)))
            return [
                code.call("llvm.fma.v16f32", _FLOATS, weight, code.load(place, _lanes(place, vector), _FLOATS), total)
                for vector, total in enumerate(sums)
            ]

        begin = [code.load(out, _lanes(out, vector), _FLOATS) for vector in range(TILE_VECTORS)]
        for vector, total in enumerate(code.loop(count, 1, begin, row)):
            code.store(total, out, _lanes(out, vector), 4)

    return _vector_code(types.void(*[types.intp] * 4), emit)


def _lanes(like: Any, vectors: int) -> Any:
    return ir.Constant(like.type, vectors * LANES)


_EXPONENTIAL = (1.535336188e-4, 1.339887440e-3, 9.618437357e-3, 5.550332471e-2, 2.402264791e-1, 6.931472028e-1, 1.0)
"""2**x for x in [-0.5, 0.5], to the last digit of a float32 (Cephes' exp2f), from the highest power of x down."""


@_intrinsic
def exponentials(_: Any, scores: Any, factor: Any, count: Any) -> Any:
    """(scores, factor, count): 2**((x - the largest x) * factor) of float32 in their place; what they add up to.

    `count` is a multiple of LANES.
    """

    def emit(code: _Code, scores: Any, factor: Any, count: Any) -> Any:
        builder, by = code.builder, code.spread(factor)

        def most(index: Any, carried: Sequence[Any]) -> list[Any]:
            return [code.call("llvm.maxnum.v16f32", _FLOATS, carried[0], code.load(scores, index, _FLOATS))]

        (largest,) = code.loop(count, LANES, [_floats(-3e38)], most)
        largest = code.spread(code.call("llvm.vector.reduce.fmax.v16f32", _FLOAT, largest))

        def convert(index: Any, carried: Sequence[Any]) -> list[Any]:
            exponent = builder.fmul(builder.fsub(code.load(scores, index, _FLOATS), largest), by)
            exponent = code.call("llvm.maxnum.v16f32", _FLOATS, exponent, _floats(-126.0))
            whole = code.call("llvm.rint.v16f32", _FLOATS, exponent)
            part, power = builder.fsub(exponent, whole), _floats(_EXPONENTIAL[0])
            for coefficient in _EXPONENTIAL[1:]:
                power = code.call("llvm.fma.v16f32", _FLOATS, power, part, _floats(coefficient))
            scale = builder.shl(builder.add(builder.fptosi(whole, _INTS), _ints(127)), _ints(23))
            number = builder.fmul(power, builder.bitcast(scale, _FLOATS))
            code.store(number, scores, index, 4)
            return [builder.fadd(carried[0], number)]

        (totals,) = code.loop(count, LANES, [_floats(0.0)], convert)
        lanes = [builder.extract_element(totals, ir.Constant(_INT, lane)) for lane in range(LANES)]
        total = lanes[0]
        for lane in lanes[1:]:
            total = builder.fadd(total, lane)
        return total

    return _vector_code(types.float32(types.intp, types.float32, types.intp), emit)


_SINE = (-2.5052108e-8, 2.7557319e-6, -1.9841270e-4, 8.3333333e-3, -1.6666667e-1, 1.0)
"""sin(x) / x by powers of x**2 for x in [-pi/2, pi/2], to 6e-8: Taylor's, from the highest power down."""


@_intrinsic
def snake_row(_: Any, row: Any, frequencies: Any, shares: Any, count: Any, out: Any) -> Any:
    """(row, frequencies, shares, count, out): x + sin(x * frequency)**2 * share, `count` times, a multiple of LANES."""

    def emit(code: _Code, row: Any, frequencies: Any, shares: Any, count: Any, out: Any) -> None:
        builder = code.builder

        def convert(index: Any, _: Sequence[Any]) -> list[Any]:
            states = code.load(row, index, _FLOATS)
            angle = builder.fmul(states, code.load(frequencies, index, _FLOATS))
            # A sine's square has the period pi, of which float32 holds but the first digits.
            turns = code.call("llvm.rint.v16f32", _FLOATS, builder.fmul(angle, _floats(0.31830988618)))
            angle = code.call("llvm.fma.v16f32", _FLOATS, turns, _floats(-3.140625), angle)
            angle = code.call("llvm.fma.v16f32", _FLOATS, turns, _floats(-9.67653589793e-4), angle)
            square, sine = builder.fmul(angle, angle), _floats(_SINE[0])
            for coefficient in _SINE[1:]:
                sine = code.call("llvm.fma.v16f32", _FLOATS, sine, square, _floats(coefficient))
            sine = builder.fmul(sine, angle)
            wave = builder.fmul(builder.fmul(sine, sine), code.load(shares, index, _FLOATS))
            code.store(builder.fadd(states, wave), out, index, 4)
            return []

        code.loop(count, LANES, [], convert)

    return _vector_code(types.void(*[types.intp] * 5), emit)
