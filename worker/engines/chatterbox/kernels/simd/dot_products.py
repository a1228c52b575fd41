"""Multiplication and accumulation of one group of A and a vector of groups of B, for each element type and target.

A group is as many numbers of K as a 32-bit lane multiplies at once: one float32, two int16, and four int8 (VNNI) or two
(vpmaddwd). All integer sums are exact, so the targets agree bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from llvmlite import ir
from llvmlite.binding import initialize_native_asmparser

from worker.engines.chatterbox.kernels.simd.emitter import F32, F32X16, I16X32, I32, I32X16, LANES, Emitter
from worker.engines.chatterbox.kernels.simd.targets import IntegerDotProduct, MicroKernelTarget


class DType(Enum):
    """The element type of a matrix product."""

    F32 = "f32"
    INT16 = "int16"
    INT8 = "int8"


@dataclass(frozen=True)
class DotProduct:
    """The multiplication of a group of A with a vector of groups of B."""

    group: Any
    """LLVM's type of a group of A."""
    total: Any
    """LLVM's type of a vector of accumulators."""
    accumulate: Callable[[Emitter, Any, Any, Any], Any]
    """(emitter, accumulators, A's group in every lane, vector of B): the new accumulators."""
    group_bytes: int = 4
    """Bytes of a group of B in memory."""
    unroll: int = 4
    """Unroll factor of the loop over K."""

    def load_b(self, emitter: Emitter, address: Any) -> Any:
        """Load a vector of LANES groups of B, widened to 32-bit groups."""
        zero = ir.Constant(address.type, 0)
        if self.group_bytes == 4:
            return emitter.load(address, zero, self.total)
        numbers = emitter.load(address, zero, ir.VectorType(ir.IntType(8), LANES * self.group_bytes))
        return emitter.builder.bitcast(emitter.builder.sext(numbers, I16X32), self.total)


def dot_product(dtype: DType, target: MicroKernelTarget) -> DotProduct:
    """The dot product of an element type on a target. Raises ValueError where the target has none."""
    if dtype is DType.F32:
        return DotProduct(F32, F32X16, _fma)
    if target.integers is IntegerDotProduct.VNNI:
        return DotProduct(I32, I32X16, _vpdpbusd if dtype is DType.INT8 else _vpdpwssd)
    if target.integers is IntegerDotProduct.PMADDWD:
        accumulate = _vpmaddwd_512 if target.vector_bits == 512 else _vpmaddwd_256
        group_bytes = target.integers.value if dtype is DType.INT8 else 4
        # Unrolled, LLVM would add up the products of several k before the accumulators, beyond the registers.
        return DotProduct(I32, I32X16, accumulate, group_bytes, unroll=1)
    raise ValueError("kernels of integers need a processor with AVX2")


def _fma(emitter: Emitter, total: Any, a: Any, b: Any) -> Any:
    return emitter.fma(a, b, total)


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


def _vpmaddwd_512(emitter: Emitter, total: Any, a: Any, b: Any) -> Any:
    """Two int16 of A times two of B in each lane, as a product and a sum."""
    pairs = (emitter.builder.bitcast(vector, I16X32) for vector in (a, b))
    return emitter.builder.add(total, emitter.call("llvm.x86.avx512.pmaddw.d.512", I32X16, *pairs))


def _vpmaddwd_256(emitter: Emitter, total: Any, a: Any, b: Any) -> Any:
    """The same in halves of 256 bits."""
    builder, half = emitter.builder, ir.VectorType(I32, LANES // 2)
    products = []
    for first in (0, LANES // 2):
        lanes = ir.Constant(half, list(range(first, first + LANES // 2)))
        pairs = (
            builder.bitcast(builder.shuffle_vector(vector, vector, lanes), ir.VectorType(ir.IntType(16), LANES))
            for vector in (a, b)
        )
        products.append(emitter.call("llvm.x86.avx2.pmadd.wd", half, *pairs))
    return builder.add(total, builder.shuffle_vector(*products, ir.Constant(I32X16, list(range(LANES)))))
