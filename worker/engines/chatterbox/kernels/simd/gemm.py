"""Micro-kernels of a matrix product, C[M,N] = A[M,K] · B[K,N], and the transposition of a block.

A micro-kernel computes one small block of C, whose accumulators stay in registers over all of K. K is counted in groups
of 32 bits: one float32, two int16, or four int8 that lie side by side, as the processor multiplies them (VNNI).
All arguments are addresses and counts; lda, ldb and ldc are the bytes from a row of A, B or C to its next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

from llvmlite import ir
from llvmlite.binding import initialize_native_asmparser
from numba import types

from worker.engines.chatterbox.kernels.simd.emitter import (
    F32,
    F32X16,
    I32,
    I32X16,
    LANES,
    VECTOR_BYTES,
    Emitter,
    simd_intrinsic,
    vector_offset,
)

MR, NR_VECTORS = 6, 4
"""Rows of a block of C, and vectors of its columns: 24 of the 32 vector registers accumulate, five hold operands."""
NR = NR_VECTORS * LANES
"""Columns of a block of C."""


@dataclass(frozen=True)
class _DotProduct:
    """How one group of A and a vector of groups of B are multiplied and accumulated."""

    group: Any
    """LLVM's type of a group of A."""
    vector: Any
    """LLVM's type of a vector of B's groups, and of a vector of accumulators."""
    accumulate: Callable[[Emitter, Any, Any, Any], Any]
    """(emitter, accumulators, A's group in every lane, vector of B): the new accumulators."""


def _vpdpbusd(emitter: Emitter, total: Any, a: Any, b: Any) -> Any:
    """Four unsigned bytes of A times four signed bytes of B in each lane."""
    return emitter.call("llvm.x86.avx512.vpdpbusd.512", I32X16, total, a, b)


def _vpdpwssd(emitter: Emitter, total: Any, a: Any, b: Any) -> Any:
    """Two int16 of A times two of B in each lane.

    As inline assembly: LLVM turns its own intrinsic into a product and a sum, which take half as long again.
    """
    initialize_native_asmparser()
    function_type = ir.FunctionType(I32X16, [I32X16, I32X16, I32X16])
    return emitter.builder.asm(function_type, "vpdpwssd $3, $2, $0", "=v,0,v,v", [total, a, b], side_effect=False)


def _fma(emitter: Emitter, total: Any, a: Any, b: Any) -> Any:
    return emitter.fma(a, b, total)


_INT8 = _DotProduct(I32, I32X16, _vpdpbusd)
_INT16 = _DotProduct(I32, I32X16, _vpdpwssd)
_F32 = _DotProduct(F32, F32X16, _fma)


def _accumulate(
    emitter: Emitter,
    dot: _DotProduct,
    rows: Sequence[Any],
    a_step: Any,
    vectors: Sequence[Any],
    b_step: Any,
    k: Any,
    initial: Sequence[Any],
) -> Sequence[Any]:
    """The accumulators of rows x vectors, row by row, after all of K; each row starts from `initial`.

    `rows` and `vectors` are the addresses of A's rows and of B's vectors at k = 0; `a_step` and `b_step` are the bytes
    from there to the next k.
    """
    builder = emitter.builder

    def body(index: Any, totals: Sequence[Any]) -> list[Any]:
        places = [builder.add(vector, builder.mul(index, b_step)) for vector in vectors]
        for place in places:
            emitter.prefetch(place)
        b = [emitter.load(place, zero, dot.vector) for place in places]
        a_offset = builder.mul(index, a_step)
        results = []
        for row, start in enumerate(rows):
            a = emitter.broadcast(emitter.load(builder.add(start, a_offset), zero, dot.group))
            for column, vector in enumerate(b):
                results.append(dot.accumulate(emitter, totals[len(vectors) * row + column], a, vector))
        return results

    zero = ir.Constant(a_step.type, 0)
    return emitter.loop(k, 1, [*initial] * len(rows), body)


def _behind(emitter: Emitter, address: Any, number: int, size: Any) -> Any:
    """The address `number` items of `size` bytes behind another."""
    return emitter.builder.add(address, emitter.builder.mul(size, ir.Constant(size.type, number)))


def _store(emitter: Emitter, totals: Sequence[Any], vectors: int, c: Any, ldc: Any) -> None:
    """Store the accumulators of rows x vectors into C."""
    for number, total in enumerate(totals):
        row = _behind(emitter, c, number // vectors, ldc)
        emitter.store(total, row, vector_offset(row, number % vectors), 4)


def _emit_tile(dot: _DotProduct, emitter: Emitter, *arguments: Any) -> None:
    """C[MR,NR] = A · B, added to the NR initial sums if there is an eighth argument: see `tile_int8_from`."""
    a, lda, b, ldb, k, c, ldc, *initial = arguments
    rows = [_behind(emitter, a, number, lda) for number in range(MR)]
    group_bytes, vector_bytes = ir.Constant(a.type, 4), ir.Constant(a.type, VECTOR_BYTES)
    vectors = [_behind(emitter, b, number, vector_bytes) for number in range(NR_VECTORS)]
    start = [
        emitter.load(initial[0], vector_offset(a, number), dot.vector)
        if initial
        else ir.Constant(dot.vector, [0] * LANES)
        for number in range(NR_VECTORS)
    ]
    totals = _accumulate(emitter, dot, rows, group_bytes, vectors, ldb, k, start)
    _store(emitter, totals, NR_VECTORS, c, ldc)


@simd_intrinsic(types.void(*[types.intp] * 7))
def tile_f32(emitter: Emitter, a: Any, lda: Any, b: Any, ldb: Any, k: Any, c: Any, ldc: Any) -> None:
    """C[MR,NR] = A[MR,K] · B[K,NR] in float32."""
    _emit_tile(_F32, emitter, a, lda, b, ldb, k, c, ldc)


@simd_intrinsic(types.void(*[types.intp] * 7))
def tile_int16(emitter: Emitter, a: Any, lda: Any, b: Any, ldb: Any, k: Any, c: Any, ldc: Any) -> None:
    """C[MR,NR] = A[MR,K] · B[K,NR] of int16, in int32."""
    _emit_tile(_INT16, emitter, a, lda, b, ldb, k, c, ldc)


@simd_intrinsic(types.void(*[types.intp] * 7))
def tile_int8(emitter: Emitter, a: Any, lda: Any, b: Any, ldb: Any, k: Any, c: Any, ldc: Any) -> None:
    """C[MR,NR] = A[MR,K] · B[K,NR] of unsigned (A) and signed (B) bytes, in int32."""
    _emit_tile(_INT8, emitter, a, lda, b, ldb, k, c, ldc)


@simd_intrinsic(types.void(*[types.intp] * 8))
def tile_int8_from(  # noqa: PLR0917
    emitter: Emitter, a: Any, lda: Any, b: Any, ldb: Any, k: Any, c: Any, ldc: Any, initial: Any
) -> None:
    """Like `tile_int8`, with the NR int32 at `initial` added to each row of C."""
    _emit_tile(_INT8, emitter, a, lda, b, ldb, k, c, ldc, initial)


class DType(Enum):
    """The element type of a packed matrix product."""

    F32 = "f32"
    INT8 = "int8"


def _emit_packed(dot: _DotProduct, mr: int, emitter: Emitter, a: Any, b: Any, k: Any, c: Any, ldc: Any) -> None:
    """C[mr,nr] = A · B of one panel of A, (K, mr), and of B's panels of LANES columns, (nr / LANES, K, LANES).

    nr is as many columns as there are accumulators for: MR * NR / mr.
    """
    vectors = MR * NR_VECTORS // mr
    rows = [_behind(emitter, a, number, ir.Constant(a.type, 4)) for number in range(mr)]
    a_step, b_step = ir.Constant(a.type, mr * 4), ir.Constant(a.type, VECTOR_BYTES)
    panels = [_behind(emitter, b, number, emitter.builder.mul(k, b_step)) for number in range(vectors)]
    initial = [ir.Constant(dot.vector, [0] * LANES)] * vectors
    totals = _accumulate(emitter, dot, rows, a_step, panels, b_step, k, initial)
    _store(emitter, totals, vectors, c, ldc)


PACKED_MR = (6, 12, 24)
"""Rows of the blocks of C in a packed product: 6 x 64, 12 x 32 or 24 x 16.

The more rows, the less of B is read in the time that the computation of one k takes.
"""
MICRO_KERNELS = {
    (dtype, mr): partial(_emit_packed, dot, mr)
    for dtype, dot in ((DType.F32, _F32), (DType.INT8, _INT8))
    for mr in PACKED_MR
}
"""(element type, rows of a block) -> emits that micro-kernel, see `_emit_packed`."""


def _packed_micro_kernel(dtype: DType) -> Callable[..., Any]:
    def emit_from(heights: Sequence[int], emitter: Emitter, mr: Any, *arguments: Any) -> None:
        """Emit the choice among these heights; the last needs no test."""
        height, *others = heights
        if not others:
            MICRO_KERNELS[dtype, height](emitter, *arguments)
            return
        chosen = emitter.builder.icmp_signed("==", mr, ir.Constant(mr.type, height))
        with emitter.builder.if_else(chosen) as (then, otherwise):
            with then:
                MICRO_KERNELS[dtype, height](emitter, *arguments)
            with otherwise:
                emit_from(others, emitter, mr, *arguments)

    @simd_intrinsic(types.void(*[types.intp] * 6))
    def micro_kernel(emitter: Emitter, mr: Any, a: Any, b: Any, k: Any, c: Any, ldc: Any) -> None:
        emit_from(PACKED_MR, emitter, mr, a, b, k, c, ldc)

    return micro_kernel


micro_kernel_f32 = _packed_micro_kernel(DType.F32)
"""(mr, a, b, k, c, ldc): run MICRO_KERNELS[DType.F32, mr]."""
micro_kernel_int8 = _packed_micro_kernel(DType.INT8)
"""(mr, a, b, k, c, ldc): run MICRO_KERNELS[DType.INT8, mr], of unsigned (A) and signed (B) bytes, in int32."""


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
