"""Micro-kernels of an int8 product in AMX's matrix tiles, C[M,N] = A[M,K] · B[K,N].

A tile register holds 16 rows of 64 bytes. `tdpbusd` multiplies a tile of unsigned bytes of A, 16 rows x 64 of K, with a
tile of signed bytes of B, 16 groups of four of K x 16 columns, and adds 16 x 16 sums of 32 bits to a third. B's tiles
are the panels of `packed_gemm` as they lie in memory, and A's rows need no packing. Sums of integers are exact: they
agree with those of vectors bit for bit.

A block of C takes four tiles, A and B two each: with two by two, as many tiles are multiplied as are loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from worker.engines.chatterbox.kernels.simd.emitter import Emitter, simd_intrinsic
from worker.engines.chatterbox.kernels.simd.targets import TARGET, TILE_MR

TILE_ROWS, TILE_ROW_BYTES = 16, 64
"""Rows of a tile and bytes of each."""
TILE_NR = 32
"""Columns of a block of C."""

_SIDE = 2
"""Tiles of C's block in each direction, where it has `TILE_MR` rows."""
_FIRST_A, _FIRST_B = _SIDE * _SIDE, _SIDE * (_SIDE + 1)
"""Registers 0 to 3 are C's tiles."""
_TILES = _SIDE * (_SIDE + 2)
_VOID, _I8 = ir.VoidType(), ir.IntType(8)


def _configuration() -> bytes:
    """The operand of `ldtilecfg`: palette 1, whose registers all have TILE_ROWS rows of TILE_ROW_BYTES."""
    row_bytes = b"".join(TILE_ROW_BYTES.to_bytes(2, "little") for _ in range(_TILES))
    rows = bytes([TILE_ROWS] * _TILES)
    return (bytes([1]).ljust(16, b"\0") + row_bytes).ljust(48, b"\0") + rows.ljust(16, b"\0")


@simd_intrinsic(types.void())
def configure_tiles(emitter: Emitter) -> None:
    """Prepare the tile registers of this thread; `release_tiles` has to follow."""
    numbers = _configuration()
    constant = ir.Constant(ir.ArrayType(_I8, len(numbers)), bytearray(numbers))
    place = cgutils.global_constant(emitter.builder, "tile_configuration", constant)
    _call(emitter, "ldtilecfg", emitter.builder.bitcast(place, _I8.as_pointer()))


@simd_intrinsic(types.void())
def release_tiles(emitter: Emitter) -> None:
    """Give the tile registers back, so that the operating system need not save them."""
    _call(emitter, "tilerelease")


class _Tiles:
    """Emits instructions on tile registers, which are numbered."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter

    def load(self, register: int, address: Any, row_bytes: Any) -> None:
        """Load a tile whose rows lie `row_bytes` apart."""
        self._call("tileloadd64", _register(register), self._pointer(address), row_bytes)

    def store(self, register: int, address: Any, row_bytes: Any) -> None:
        """Store a tile."""
        self._call("tilestored64", _register(register), self._pointer(address), row_bytes)

    def multiply(self, row: int, column: int) -> None:
        """Add the product of A's tile of that row and B's of that column to C's."""
        self._call("tdpbusd", *map(_register, (_c(row, column), _FIRST_A + row, _FIRST_B + column)))

    def _pointer(self, address: Any) -> Any:
        return self._emitter.builder.inttoptr(address, _I8.as_pointer())

    def _call(self, instruction: str, *operands: Any) -> None:
        _call(self._emitter, instruction, *operands)


def _call(emitter: Emitter, instruction: str, *operands: Any) -> None:
    """Emit an instruction; nothing for other targets: code that is never reached there has to compile all the same."""
    if TARGET.matrix_tiles:
        emitter.call(f"llvm.x86.{instruction}", _VOID, *operands)


def _register(number: int) -> Any:
    return ir.Constant(_I8, number)


def _c(row: int, column: int) -> int:
    """The register of C's tile."""
    return row * _SIDE + column


def _multiply(height: int) -> Callable[..., Any]:
    """A function (a, lda, b, ldb, panel_bytes, k, c, ldc, initial): C = A · B of `height` x 2 tiles.

    Arguments are addresses and counts. A's and C's rows lie `lda` and `ldc` bytes apart, B's groups of four numbers of
    K `ldb`, its panels of 16 columns `panel_bytes`; `k` counts tiles of K, at least one. `initial` are TILE_NR sums
    that are added to each row of C.
    """
    block = list(product(range(height), range(_SIDE)))

    @simd_intrinsic(types.void(*[types.intp] * 9))
    def emit(  # noqa: PLR0917
        emitter: Emitter,
        a: Any,
        lda: Any,
        b: Any,
        ldb: Any,
        panel_bytes: Any,
        k: Any,
        c: Any,
        ldc: Any,
        initial: Any,
    ) -> None:
        builder, tiles = emitter.builder, _Tiles(emitter)
        zero, tile_row = ir.Constant(k.type, 0), ir.Constant(k.type, TILE_ROW_BYTES)

        def behind(address: Any, number: int, distance: Any) -> Any:
            return builder.add(address, builder.mul(distance, ir.Constant(distance.type, number)))

        def multiply(step: Any, _: Any) -> list[Any]:
            a_tiles = builder.add(a, builder.mul(step, tile_row))
            b_tiles = builder.add(b, builder.mul(step, behind(zero, TILE_ROWS, ldb)))
            for row in range(height):
                tiles.load(_FIRST_A + row, behind(a_tiles, row * TILE_ROWS, lda), lda)
            for column in range(_SIDE):
                tiles.load(_FIRST_B + column, behind(b_tiles, column, panel_bytes), ldb)
                for row in range(height):
                    tiles.multiply(row, column)
            return []

        for row, column in block:
            # Its rows lie no bytes apart: the same one sixteen times.
            tiles.load(_c(row, column), behind(initial, column, tile_row), zero)
        emitter.loop(k, 1, [], multiply)
        for row, column in block:
            tiles.store(_c(row, column), behind(behind(c, row * TILE_ROWS, ldc), column, tile_row), ldc)

    return emit


multiply_16_rows, multiply_32_rows = _multiply(1), _multiply(TILE_MR // TILE_ROWS)
