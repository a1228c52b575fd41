"""Micro-kernels of a matrix product, C[M,N] = A[M,K] · B[K,N], and the transposition of a block.

A micro-kernel computes one small block of C, whose accumulators stay in registers over all of K. A block that exceeds
the registers is computed in parts, each over all of K. K is counted in groups of numbers that are multiplied at once,
which lie side by side, see `dot_products`. All arguments are addresses and counts; lda, ldb and ldc are the bytes from
a row of A, B or C to its next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

from llvmlite import ir
from numba import types

from worker.engines.chatterbox.kernels.simd.dot_products import DotProduct, DType, dot_product
from worker.engines.chatterbox.kernels.simd.emitter import (
    I32X16,
    LANES,
    Emitter,
    simd_intrinsic,
    vector_offset,
)
from worker.engines.chatterbox.kernels.simd.targets import MR, NR_VECTORS, TARGET, MicroKernelTarget

NR = NR_VECTORS * LANES
"""Columns of a block of C."""
INT8_GROUP = 4 if TARGET.integers is None else TARGET.integers.value
"""int8 numbers of K that a micro-kernel multiplies at once."""


@dataclass(frozen=True)
class _Block:
    """The operands of a block of C, rows x vectors."""

    rows: Sequence[Any]
    """The addresses of A's rows at k = 0."""
    a_step: Any
    """Bytes from there to the next k."""
    vectors: Sequence[Any]
    """The addresses of B's vectors at k = 0."""
    b_step: Any
    """Bytes from there to the next k."""
    k: Any
    """Number of steps along K."""
    initial: Sequence[Any]
    """The vectors of sums from which each row starts."""

    def part(self, rows: slice, vectors: slice) -> _Block:
        """A part of the block."""
        return replace(self, rows=self.rows[rows], vectors=self.vectors[vectors], initial=self.initial[vectors])


def _accumulate(emitter: Emitter, dot: DotProduct, block: _Block) -> Sequence[Any]:
    """The accumulators of a block, row by row, after all of K."""
    builder = emitter.builder

    def body(index: Any, totals: Sequence[Any]) -> list[Any]:
        places = [builder.add(vector, builder.mul(index, block.b_step)) for vector in block.vectors]
        for place in places:
            emitter.prefetch(place)
        b = [dot.load_b(emitter, place) for place in places]
        a_offset = builder.mul(index, block.a_step)
        results = []
        for row, start in enumerate(block.rows):
            a = emitter.broadcast(emitter.load(builder.add(start, a_offset), zero, dot.group))
            for column, vector in enumerate(b):
                results.append(dot.accumulate(emitter, totals[len(b) * row + column], a, vector))
        return results

    zero = ir.Constant(block.a_step.type, 0)
    return emitter.loop(block.k, 1, [*block.initial] * len(block.rows), body, unroll=dot.unroll)


def _behind(emitter: Emitter, address: Any, number: int, size: Any) -> Any:
    """The address `number` items of `size` bytes behind another."""
    return emitter.builder.add(address, emitter.builder.mul(size, ir.Constant(size.type, number)))


def _emit_block(emitter: Emitter, dot: DotProduct, accumulators: int, block: _Block, c: Any, ldc: Any) -> None:
    """Compute a block of C in parts of at most so many accumulators, each over all of K."""
    height = min(len(block.rows), accumulators)
    width = min(len(block.vectors), max(1, accumulators // height))
    for first_row, first_vector in product(range(0, len(block.rows), height), range(0, len(block.vectors), width)):
        part = block.part(slice(first_row, first_row + height), slice(first_vector, first_vector + width))
        for number, total in enumerate(_accumulate(emitter, dot, part)):
            row = _behind(emitter, c, first_row + number // width, ldc)
            emitter.store(total, row, vector_offset(row, first_vector + number % width), 4)


def _emit_tile(dtype: DType, target: MicroKernelTarget, emitter: Emitter, *arguments: Any) -> None:
    """C[MR,NR] = A · B, added to the NR initial sums if there is an eighth argument: see `tile_int8_from`."""
    a, lda, b, ldb, k, c, ldc, *initial = arguments
    dot = dot_product(dtype, target)
    rows = [_behind(emitter, a, number, lda) for number in range(MR)]
    group_bytes, vector_bytes = ir.Constant(a.type, 4), ir.Constant(a.type, dot.group_bytes * LANES)
    vectors = [_behind(emitter, b, number, vector_bytes) for number in range(NR_VECTORS)]
    start = [
        emitter.load(initial[0], vector_offset(a, number), dot.total)
        if initial
        else ir.Constant(dot.total, [0] * LANES)
        for number in range(NR_VECTORS)
    ]
    block = _Block(rows, group_bytes, vectors, ldb, k, start)
    _emit_block(emitter, dot, target.accumulators, block, c, ldc)


def tile(dtype: DType, target: MicroKernelTarget = TARGET) -> Callable[..., Any]:
    """A function (a, lda, b, ldb, k, c, ldc): C[MR,NR] = A[MR,K] · B[K,NR].

    In float32, or of integers in int32: int16, or unsigned (A) and signed (B) bytes, where A has INT8_GROUP bytes or
    int16 in a group.
    """

    @simd_intrinsic(types.void(*[types.intp] * 7))
    def emit(emitter: Emitter, a: Any, lda: Any, b: Any, ldb: Any, k: Any, c: Any, ldc: Any) -> None:
        _emit_tile(dtype, target, emitter, a, lda, b, ldb, k, c, ldc)

    return emit


def tile_from(dtype: DType, target: MicroKernelTarget = TARGET) -> Callable[..., Any]:
    """A function (a, lda, b, ldb, k, c, ldc, initial): `tile`, with the NR sums at `initial` added to each row of C."""

    @simd_intrinsic(types.void(*[types.intp] * 8))
    def emit(  # noqa: PLR0917
        emitter: Emitter, a: Any, lda: Any, b: Any, ldb: Any, k: Any, c: Any, ldc: Any, initial: Any
    ) -> None:
        _emit_tile(dtype, target, emitter, a, lda, b, ldb, k, c, ldc, initial)

    return emit


tile_f32, tile_int16, tile_int8 = tile(DType.F32), tile(DType.INT16), tile(DType.INT8)
tile_int8_from = tile_from(DType.INT8)


def _emit_packed(  # noqa: PLR0917
    dot: DotProduct, mr: int, vectors: int, emitter: Emitter, a: Any, b: Any, k: Any, c: Any, ldc: Any
) -> None:
    """C[mr,nr] = A · B of one panel of A, (K, mr), and of B's panels of LANES columns, (nr / LANES, K, LANES)."""
    rows = [_behind(emitter, a, number, ir.Constant(a.type, 4)) for number in range(mr)]
    a_step, b_step = ir.Constant(a.type, mr * 4), ir.Constant(a.type, dot.group_bytes * LANES)
    panels = [_behind(emitter, b, number, emitter.builder.mul(k, b_step)) for number in range(vectors)]
    initial = [ir.Constant(dot.total, [0] * LANES)] * vectors
    _emit_block(emitter, dot, mr * vectors, _Block(rows, a_step, panels, b_step, k, initial), c, ldc)


def micro_kernels(dtype: DType, target: MicroKernelTarget = TARGET) -> dict[int, Callable[..., None]]:
    """Rows of a block -> emits that micro-kernel of a packed product, see `_emit_packed`."""
    dot = dot_product(dtype, target)
    return {mr: partial(_emit_packed, dot, mr, vectors) for mr, vectors in target.packed_blocks}


def micro_kernel(dtype: DType, target: MicroKernelTarget = TARGET) -> Callable[..., Any]:
    """A function (mr, a, b, k, c, ldc): run `micro_kernels(dtype, target)[mr]`."""

    def emit_from(
        kernels: Sequence[tuple[int, Callable[..., None]]], emitter: Emitter, mr: Any, *arguments: Any
    ) -> None:
        """Emit the choice among these kernels; the last needs no test."""
        (height, kernel), *others = kernels
        if not others:
            kernel(emitter, *arguments)
            return
        chosen = emitter.builder.icmp_signed("==", mr, ir.Constant(mr.type, height))
        with emitter.builder.if_else(chosen) as (then, otherwise):
            with then:
                kernel(emitter, *arguments)
            with otherwise:
                emit_from(others, emitter, mr, *arguments)

    @simd_intrinsic(types.void(*[types.intp] * 6))
    def emit(emitter: Emitter, mr: Any, a: Any, b: Any, k: Any, c: Any, ldc: Any) -> None:
        emit_from(list(micro_kernels(dtype, target).items()), emitter, mr, a, b, k, c, ldc)

    return emit


micro_kernel_f32, micro_kernel_int8 = micro_kernel(DType.F32), micro_kernel(DType.INT8)


@simd_intrinsic(types.void(*[types.intp] * 4))
def transpose_block(emitter: Emitter, rows: Any, row_bytes: Any, out: Any, out_bytes: Any) -> None:
    """Transpose LANES rows of LANES 32-bit numbers; rows lie `row_bytes` apart, in `out` `out_bytes`."""
    builder = emitter.builder

    def row(address: Any, size: Any, number: int) -> Any:
        return builder.add(address, builder.mul(size, ir.Constant(size.type, number)))

    zero = ir.Constant(rows.type, 0)
    block = [emitter.load(row(rows, row_bytes, number), zero, I32X16) for number in range(LANES)]
    # Quarters that lie across from each other change places, in ever smaller squares.
    for half in (8, 4, 2, 1):
        lower = [lane if lane & half == 0 else LANES + lane - half for lane in range(LANES)]
        upper = [lane + half if lane & half == 0 else LANES + lane for lane in range(LANES)]
        for first in range(LANES):
            if first & half == 0:
                pair = block[first], block[first + half]
                block[first], block[first + half] = (
                    builder.shuffle_vector(*pair, ir.Constant(I32X16, order)) for order in (lower, upper)
                )
    for number, column in enumerate(block):
        emitter.store(column, row(out, out_bytes, number), zero, 4)
