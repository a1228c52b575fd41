"""Products of a block of rows with a block of columns, whose sums stay in registers, and blocks turned over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from llvmlite import ir
from llvmlite.binding import initialize_native_asmparser
from numba import types

from worker.engines.chatterbox.kernels.simd.emitter import (
    FLOAT,
    FLOATS,
    INT,
    INTS,
    LANES,
    VECTOR_BYTES,
    Code,
    in_compiled_code,
    lanes,
    vector_code,
)

TILE_ROWS, TILE_VECTORS = 6, 4
"""A tile's sums take 24 of the 32 vector registers, its operands five."""
TILE_COLUMNS = TILE_VECTORS * LANES


@dataclass(frozen=True)
class _Numbers:
    """What is multiplied."""

    lane: Any
    """Of a row, in one step."""
    vector: Any
    """Of columns, and of sums."""
    multiply: Callable[[Code, Any, Any, Any], Any]
    """Adds to a vector of sums what a spread lane and a vector of columns make."""


def _dot(name: str) -> Callable[[Code, Any, Any, Any], Any]:
    """A processor's own product of several small numbers in each lane."""
    return lambda code, total, one, column: code.call(name, INTS, total, one, column)


def _word_pairs(code: Code, total: Any, one: Any, column: Any) -> Any:
    """As an instruction of its own: LLVM makes a product and a sum of its intrinsic, which take half as long again."""
    initialize_native_asmparser()
    kind = ir.FunctionType(INTS, [INTS, INTS, INTS])
    return code.builder.asm(kind, "vpdpwssd $3, $2, $0", "=v,0,v,v", [total, one, column], side_effect=False)


_OF_BYTES = _Numbers(INT, INTS, _dot("llvm.x86.avx512.vpdpbusd.512"))
_OF_WORDS = _Numbers(INT, INTS, _word_pairs)
_OF_FLOATS = _Numbers(FLOAT, FLOATS, lambda code, total, one, column: code.fma(one, column, total))


def _sums(
    code: Code,
    numbers: _Numbers,
    rows: Sequence[Any],
    apart: Any,
    columns: Sequence[Any],
    size: Any,
    steps: Any,
    begin: Sequence[Any],
) -> Sequence[Any]:
    """Rows times vectors of columns, row by row, each row's added to `begin`.

    From a step to the next a row's lanes are `apart`, columns `size`.
    """
    builder = code.builder

    def step(index: Any, sums: Sequence[Any]) -> list[Any]:
        places = [builder.add(column, builder.mul(index, size)) for column in columns]
        for place in places:
            code.fetch(place)
        beside = [code.load(place, nothing, numbers.vector) for place in places]
        further = builder.mul(index, apart)
        results = []
        for number, start in enumerate(rows):
            one = code.spread(code.load(builder.add(start, further), nothing, numbers.lane))
            for column, its in enumerate(beside):
                results.append(numbers.multiply(code, sums[len(columns) * number + column], one, its))
        return results

    nothing = ir.Constant(apart.type, 0)
    return code.loop(steps, 1, [*begin] * len(rows), step)


def _below(code: Code, address: Any, number: int, size: Any) -> Any:
    return code.builder.add(address, code.builder.mul(size, ir.Constant(size.type, number)))


def _store(code: Code, sums: Sequence[Any], vectors: int, out: Any, out_bytes: Any) -> None:
    for number, total in enumerate(sums):
        row = _below(code, out, number // vectors, out_bytes)
        code.store(total, row, lanes(row, number % vectors), 4)


def _tile(numbers: _Numbers) -> Any:
    @in_compiled_code
    def tile(
        _: Any, rows: Any, row_bytes: Any, columns: Any, column_bytes: Any, steps: Any, out: Any, out_bytes: Any
    ) -> Any:
        return vector_code(types.void(*[types.intp] * 7), partial(_emit_tile, numbers))

    return tile


def _emit_tile(numbers: _Numbers, code: Code, *arguments: Any) -> None:
    rows, row_bytes, columns, column_bytes, steps, out, out_bytes, *begin = arguments
    starts = [_below(code, rows, number, row_bytes) for number in range(TILE_ROWS)]
    lane_bytes, vector_bytes = ir.Constant(rows.type, 4), ir.Constant(rows.type, VECTOR_BYTES)
    vectors = [_below(code, columns, number, vector_bytes) for number in range(TILE_VECTORS)]
    before = [
        code.load(begin[0], lanes(rows, number), numbers.vector) if begin else ir.Constant(numbers.vector, [0] * LANES)
        for number in range(TILE_VECTORS)
    ]
    sums = _sums(code, numbers, starts, lane_bytes, vectors, column_bytes, steps, before)
    _store(code, sums, TILE_VECTORS, out, out_bytes)


tile_bytes = _tile(_OF_BYTES)
"""(rows, row_bytes, columns, column_bytes, steps, out, out_bytes): TILE_ROWS rows of TILE_COLUMNS sums, int32.

A step multiplies four unsigned bytes of each row with four signed bytes of each column, which lie side by side; from a
step's columns to the next one's are `column_bytes`.
"""


@in_compiled_code
def tile_bytes_from(
    _: Any, rows: Any, row_bytes: Any, columns: Any, column_bytes: Any, steps: Any, out: Any, out_bytes: Any, begin: Any
) -> Any:
    """The same with one argument more: the TILE_COLUMNS int32 that each row's products are added to."""
    return vector_code(types.void(*[types.intp] * 8), partial(_emit_tile, _OF_BYTES))


tile_words = _tile(_OF_WORDS)
"""The same of two signed words of 16 bits a step."""
tile_floats = _tile(_OF_FLOATS)
"""The same of one float32 a step, into float32."""


def _strip(numbers: _Numbers, rows: int) -> Any:
    """A tile of so many rows, which lie side by side, step by step, and of as many columns as there are sums left."""
    vectors = TILE_ROWS * TILE_VECTORS // rows

    def emit(code: Code, of_rows: Any, columns: Any, steps: Any, out: Any, out_bytes: Any) -> None:
        starts = [_below(code, of_rows, number, ir.Constant(of_rows.type, 4)) for number in range(rows)]
        apart, size = (ir.Constant(of_rows.type, many) for many in (rows * 4, VECTOR_BYTES))
        strips = [_below(code, columns, number, code.builder.mul(steps, size)) for number in range(vectors)]
        before = [ir.Constant(numbers.vector, [0] * LANES)] * vectors
        _store(code, _sums(code, numbers, starts, apart, strips, size, steps, before), vectors, out, out_bytes)

    @in_compiled_code
    def strip(_: Any, rows: Any, columns: Any, steps: Any, out: Any, out_bytes: Any) -> Any:
        return vector_code(types.void(*[types.intp] * 5), emit)

    return strip


strips_of_floats_6, strips_of_floats_12, strips_of_floats_24 = (_strip(_OF_FLOATS, rows) for rows in (6, 12, 24))
"""(rows, columns, steps, out, out_bytes): 6 rows times 64 columns, 12 times 32, or 24 times 16, of float32.

`rows` has a lane of each of them side by side, step by step; of each LANES columns, `columns` has all steps, one after
the other. The more rows, the less has to be read in the time that a step takes to compute.
"""
strips_of_bytes_6, strips_of_bytes_12, strips_of_bytes_24 = (_strip(_OF_BYTES, rows) for rows in (6, 12, 24))
"""The same of bytes, four a lane, those of rows without a sign and those of columns with one: into int32."""


@in_compiled_code
def turned_block(_: Any, rows: Any, row_bytes: Any, out: Any, out_bytes: Any) -> Any:
    """(rows, row_bytes, out, out_bytes): LANES rows of LANES numbers of 32 bits as LANES columns."""

    def emit(code: Code, rows: Any, row_bytes: Any, out: Any, out_bytes: Any) -> None:
        builder = code.builder

        def row(address: Any, size: Any, number: int) -> Any:
            return builder.add(address, builder.mul(size, ir.Constant(size.type, number)))

        nothing = ir.Constant(rows.type, 0)
        block = [code.load(row(rows, row_bytes, number), nothing, INTS) for number in range(LANES)]
        # Quarters that lie across from each other change places, in ever smaller squares.
        for half in (8, 4, 2, 1):
            lower = [lane if lane & half == 0 else LANES + lane - half for lane in range(LANES)]
            upper = [lane + half if lane & half == 0 else LANES + lane for lane in range(LANES)]
            for first in range(LANES):
                if first & half == 0:
                    pair = block[first], block[first + half]
                    block[first], block[first + half] = (
                        builder.shuffle_vector(*pair, ir.Constant(INTS, order)) for order in (lower, upper)
                    )
        for number, column in enumerate(block):
            code.store(column, row(out, out_bytes, number), nothing, 4)

    return vector_code(types.void(*[types.intp] * 4), emit)
