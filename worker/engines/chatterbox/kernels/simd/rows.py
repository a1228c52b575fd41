"""One row of numbers at a time: its size, its bytes, its products with others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types

from worker.engines.chatterbox.kernels.simd.emitter import (
    BYTES,
    FLOAT,
    FLOATS,
    INTS,
    LANES,
    VECTOR_BYTES,
    Code,
    floats,
    in_compiled_code,
    ints,
    lanes,
    vector_code,
)
from worker.engines.chatterbox.kernels.simd.gemm import TILE_COLUMNS, TILE_VECTORS


@in_compiled_code
def largest(_: Any, row: Any, count: Any) -> Any:
    """(row, count): the largest of `count` float32, a multiple of LANES, without their signs."""

    def emit(code: Code, row: Any, count: Any) -> Any:
        def most(index: Any, carried: Sequence[Any]) -> list[Any]:
            size = code.call("llvm.fabs.v16f32", FLOATS, code.load(row, index, FLOATS))
            return [code.larger(carried[0], size)]

        (most_of_all,) = code.loop(count, LANES, [floats(0.0)], most)
        return code.call("llvm.vector.reduce.fmax.v16f32", FLOAT, most_of_all)

    return vector_code(types.float32(types.intp, types.intp), emit)


@in_compiled_code
def row_bytes(_: Any, row: Any, count: Any, scale: Any, middle: Any, out: Any) -> Any:
    """(row, count, scale, middle, out): `count` float32, a multiple of LANES, scaled, as bytes around a middle."""

    def emit(code: Code, row: Any, count: Any, scale: Any, middle: Any, out: Any) -> None:
        builder, by, around = code.builder, code.spread(scale), code.spread(middle)

        def convert(index: Any, _: Sequence[Any]) -> list[Any]:
            whole = builder.add(code.rounded(builder.fmul(code.load(row, index, FLOATS), by)), around)
            code.store(builder.trunc(whole, BYTES), out, index, 1)
            return []

        code.loop(count, LANES, [], convert)

    return vector_code(types.void(types.intp, types.intp, types.float32, types.int32, types.intp), emit)


@in_compiled_code
def scaled_sums(_: Any, sums: Any, less: Any, factor: Any, scales: Any, added: Any, count: Any, out: Any) -> Any:
    """(sums, less, factor, scales, added, count, out): (sums - less) * factor * scales + added, of int32 to float32.

    `count`, a multiple of LANES, numbers of each but the factor.
    """

    def emit(code: Code, sums: Any, less: Any, factor: Any, scales: Any, added: Any, count: Any, out: Any) -> None:
        builder, by = code.builder, code.spread(factor)

        def convert(index: Any, _: Sequence[Any]) -> list[Any]:
            whole = builder.sub(code.load(sums, index, INTS), code.load(less, index, INTS))
            number = builder.fmul(builder.sitofp(whole, FLOATS), by)
            number = code.fma(number, code.load(scales, index, FLOATS), code.load(added, index, FLOATS))
            code.store(number, out, index, 4)
            return []

        code.loop(count, LANES, [], convert)

    arguments = (types.intp, types.intp, types.float32, types.intp, types.intp, types.intp, types.intp)
    return vector_code(types.void(*arguments), emit)


@in_compiled_code
def added_row(_: Any, row: Any, added: Any, count: Any, out: Any) -> Any:
    """(row, added, count, out): the sums of `count` float32 of each, a multiple of LANES."""

    def emit(code: Code, row: Any, added: Any, count: Any, out: Any) -> None:
        def add(index: Any, _: Sequence[Any]) -> list[Any]:
            total = code.builder.fadd(code.load(row, index, FLOATS), code.load(added, index, FLOATS))
            code.store(total, out, index, 4)
            return []

        code.loop(count, LANES, [], add)

    return vector_code(types.void(*[types.intp] * 4), emit)


@in_compiled_code
def interleaved_rows(_: Any, one: Any, other: Any, count: Any, scale: Any, out: Any) -> Any:
    """(one, other, count, scale, out): words of 16 bits of two rows of float32 times `scale`, in turns."""

    def emit(code: Code, one: Any, other: Any, count: Any, scale: Any, out: Any) -> None:
        builder, factor = code.builder, code.spread(scale)

        def convert(index: Any, _: Sequence[Any]) -> list[Any]:
            low, high = (code.rounded(builder.fmul(code.load(row, index, FLOATS), factor)) for row in (one, other))
            pairs = builder.or_(builder.and_(low, ints(0xFFFF)), builder.shl(high, ints(16)))
            code.store(pairs, out, index, 4)
            return []

        code.loop(count, LANES, [], convert)

    return vector_code(types.void(types.intp, types.intp, types.intp, types.float32, types.intp), emit)


@in_compiled_code
def column_products(_: Any, numbers: Any, columns: Any, row_bytes: Any, rows: Any, count: Any, out: Any) -> Any:
    """(numbers, columns, row_bytes, rows, count, out): each of `count` columns of a float32 matrix times `numbers`.

    Works on TILE_COLUMNS columns at a time: so many may be read, and written, past the last.
    """

    def emit(code: Code, numbers: Any, columns: Any, row_bytes: Any, rows: Any, count: Any, out: Any) -> None:
        builder = code.builder

        def block(first: Any, _: Sequence[Any]) -> list[Any]:
            start = builder.add(columns, builder.mul(first, ir.Constant(first.type, 4)))

            def row(index: Any, sums: Sequence[Any]) -> list[Any]:
                number = code.spread(code.load(numbers, index, FLOAT))
                place = builder.add(start, builder.mul(index, row_bytes))
                for vector in range(TILE_VECTORS):
                    code.fetch(builder.add(place, ir.Constant(place.type, VECTOR_BYTES * vector)))
                return [
                    code.fma(number, code.load(place, lanes(place, vector), FLOATS), total)
                    for vector, total in enumerate(sums)
                ]

            sums = code.loop(rows, 1, [floats(0.0)] * TILE_VECTORS, row)
            for vector, total in enumerate(sums):
                code.store(total, out, builder.add(first, lanes(first, vector)), 4)
            return []

        code.loop(count, TILE_COLUMNS, [], block)

    return vector_code(types.void(*[types.intp] * 6), emit)


@in_compiled_code
def weighted_rows(_: Any, weights: Any, rows: Any, count: Any, out: Any) -> Any:
    """(weights, rows, count, out): rows of TILE_COLUMNS float32, each times its weight, added to what is in `out`."""

    def emit(code: Code, weights: Any, rows: Any, count: Any, out: Any) -> None:
        builder = code.builder

        def row(index: Any, sums: Sequence[Any]) -> list[Any]:
            weight = code.spread(code.load(weights, index, FLOAT))
            place = builder.add(rows, builder.mul(index, ir.Constant(index.type, TILE_COLUMNS * 4)))
            for vector in range(TILE_VECTORS):
                code.fetch(builder.add(place, ir.Constant(place.type, VECTOR_BYTES * vector)))
            return [
                code.fma(weight, code.load(place, lanes(place, vector), FLOATS), total)
                for vector, total in enumerate(sums)
            ]

        begin = [code.load(out, lanes(out, vector), FLOATS) for vector in range(TILE_VECTORS)]
        for vector, total in enumerate(code.loop(count, 1, begin, row)):
            code.store(total, out, lanes(out, vector), 4)

    return vector_code(types.void(*[types.intp] * 4), emit)
