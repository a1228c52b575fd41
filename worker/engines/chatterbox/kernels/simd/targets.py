"""The vector registers and dot products that micro-kernels are emitted for, by the processor's instruction sets.

Blocks of C follow from the registers: as many accumulators as fit, so that none is spilled to memory within a loop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from worker.engines.chatterbox.kernels.simd.tile_permission import may_use_tiles
from worker.precision import INSTRUCTION_SET_NAMES, Processor, detect_processor

MR, NR_VECTORS = 6, 4
"""Rows of a block of C, and vectors of 512 bits of its columns."""
TILE_MR = 32
"""Rows of a block of C in matrix tiles, see `amx`."""


class IntegerDotProduct(Enum):
    """The instructions that multiply integers, by how many int8 of K a 32-bit lane takes at once."""

    VNNI = 4
    """vpdpbusd multiplies four unsigned bytes with four signed ones, vpdpwssd two pairs of int16."""
    PMADDWD = 2
    """vpmaddwd multiplies two pairs of int16: bytes of B are widened when they are loaded, A is stored as int16."""

    @property
    def instruction(self) -> str:
        """The instruction that multiplies int8."""
        return "vpdpbusd" if self is IntegerDotProduct.VNNI else "vpmaddwd"


@dataclass(frozen=True)
class MicroKernelTarget:
    """A register file and its dot products."""

    instruction_set: str | None
    """The flag that a processor needs, see `INSTRUCTION_SET_NAMES`; None if it needs none."""
    registers: int
    vector_bits: int
    integers: IntegerDotProduct | None
    """None: no integer kernels."""
    packed_blocks: tuple[tuple[int, int], ...]
    """The blocks of C in a packed product, in ascending order: (rows, vectors of columns).

    The more rows, the less of B is read in the time that the computation of one k takes.
    """
    many_rows_mr: int
    """Rows of the blocks of a packed product of many rows: those that read least from the second-level cache."""
    matrix_tiles: bool = False
    """Whether int8 of many rows are multiplied in matrix tiles, by tdpbusd: see `amx`."""

    @property
    def many_rows(self) -> int:
        """Rows that a product of many rows should have a multiple of."""
        return TILE_MR if self.matrix_tiles else self.many_rows_mr

    @property
    def accumulators(self) -> int:
        """Vectors of 512 bits that accumulate: three quarters of the registers; the others hold operands."""
        return self.registers * 3 // 4 * self.vector_bits // 512

    @property
    def name(self) -> str:
        """The instruction set by its vendor's name."""
        return "none of these" if self.instruction_set is None else INSTRUCTION_SET_NAMES[self.instruction_set]

    def __str__(self) -> str:
        products = (
            "no products of int8" if self.integers is None else f"products of int8 by {self.integers.instruction}"
        )
        tiles = ", of many rows by tdpbusd" if self.matrix_tiles else ""
        return f"{self.registers} registers of {self.vector_bits} bits ({self.name}), {products}{tiles}"

    def runs_on(self, processor: Processor) -> bool:
        """Whether the processor runs the target's code, and the operating system lets this process use its tiles."""
        if self.instruction_set is not None and self.instruction_set not in processor.instruction_sets:
            return False
        return may_use_tiles() if self.matrix_tiles else True


_BLOCKS_OF_512_BITS = (6, 4), (12, 2), (24, 1)
AVX512_VNNI = MicroKernelTarget("avx512_vnni", 32, 512, IntegerDotProduct.VNNI, _BLOCKS_OF_512_BITS, 12)
AVX512 = MicroKernelTarget("avx512bw", 32, 512, IntegerDotProduct.PMADDWD, _BLOCKS_OF_512_BITS, 12)
AVX2 = MicroKernelTarget("avx2", 16, 256, IntegerDotProduct.PMADDWD, ((1, 2), (2, 2), (4, 1), (6, 1)), 6)
BASELINE = MicroKernelTarget(None, 16, 128, None, ((1, 1), (3, 1)), 3)
"""x86 without AVX2, and Arm."""

AMX = replace(AVX512_VNNI, instruction_set="amx_int8", matrix_tiles=True)
TARGETS = (AMX, AVX512_VNNI, AVX512, AVX2, BASELINE)
"""From the fastest to the slowest."""
TARGET = next(target for target in TARGETS if target.runs_on(detect_processor()))
"""The target of this host's kernels."""
