"""Products of a block of rows with a block of columns, whose sums stay in registers, and blocks turned over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from llvmlite.binding import initialize_native_asmparser
from numba import types

from worker.engines.chatterbox.vectors.code import (
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


def _tile(multiply: Callable[[Code, Any, Any, Any], Any], lane: Any, vector: Any, *, ahead: bool = False) -> Any:
    """Sums of products of a block of rows with a block of columns (see `tile_bytes`).

    `multiply` adds to a vector of sums what `lane`, of one row, and a `vector` of columns make. Columns that come from
    memory are fetched `ahead`.
    """

    def emit(
        code: Code, rows: Any, row_bytes: Any, columns: Any, column_bytes: Any, steps: Any, out: Any, out_bytes: Any
    ) -> None:
        builder = code.builder

        def below(address: Any, number: int, size: Any) -> Any:
            return builder.add(address, builder.mul(size, ir.Constant(size.type, number)))

        starts = [below(rows, number, row_bytes) for number in range(TILE_ROWS)]

        def step(index: Any, sums: Sequence[Any]) -> list[Any]:
            place = builder.add(columns, builder.mul(index, column_bytes))
            if ahead:
                for number in range(TILE_VECTORS):
                    code.fetch(builder.add(place, ir.Constant(place.type, VECTOR_BYTES * number)))
            beside = [code.load(place, lanes(place, number), vector) for number in range(TILE_VECTORS)]
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
            code.store(total, row, lanes(row, number % TILE_VECTORS), 4)

    @in_compiled_code
    def tile(
        _: Any, rows: Any, row_bytes: Any, columns: Any, column_bytes: Any, steps: Any, out: Any, out_bytes: Any
    ) -> Any:
        return vector_code(types.void(*[types.intp] * 7), emit)

    return tile


def _dot(name: str) -> Callable[[Code, Any, Any, Any], Any]:
    """A processor's own product of several small numbers in each lane."""
    return lambda code, total, one, column: code.call(name, INTS, total, one, column)


def _word_pairs(code: Code, total: Any, one: Any, column: Any) -> Any:
    """As an instruction of its own: LLVM makes a product and a sum of its intrinsic, which take half as long again."""
    initialize_native_asmparser()
    kind = ir.FunctionType(INTS, [INTS, INTS, INTS])
    return code.builder.asm(kind, "vpdpwssd $3, $2, $0", "=v,0,v,v", [total, one, column], side_effect=False)


tile_bytes = _tile(_dot("llvm.x86.avx512.vpdpbusd.512"), INT, INTS)
"""(rows, row_bytes, columns, column_bytes, steps, out, out_bytes): TILE_ROWS rows of TILE_COLUMNS sums, int32.

A step multiplies four unsigned bytes of each row with four signed bytes of each column, which lie side by side; from a
step's columns to the next one's are `column_bytes`.
"""
tile_words = _tile(_word_pairs, INT, INTS)
"""The same of two signed words of 16 bits a step."""
tile_floats = _tile(lambda code, total, one, column: code.fma(one, column, total), FLOAT, FLOATS, ahead=True)
"""The same of one float32 a step, into float32."""


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
