"""Emits vector code: LLVM instructions on vectors of 16 numbers, for functions that code compiled by Numba can call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
"""32-bit numbers in a vector of 512 bits."""
VECTOR_BYTES = 4 * LANES

F32, I32 = ir.FloatType(), ir.IntType(32)
F32X16, I32X16 = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES)
F16X16 = ir.VectorType(ir.HalfType(), LANES)
I16X16, I8X16 = ir.VectorType(ir.IntType(16), LANES), ir.VectorType(ir.IntType(8), LANES)
I8X64 = ir.VectorType(ir.IntType(8), 4 * LANES)
I16X32 = ir.VectorType(ir.IntType(16), 2 * LANES)

PREFETCH_BYTES = 4096
"""Bytes to prefetch ahead: a page, at whose end the processor's own prefetching stops."""

LOG2_E = 1.4426950408889634
"""e**x is 2**(x * LOG2_E)."""
MIN_EXPONENT, MAX_EXPONENT = -126.0, 126.0
"""Powers of two with these exponents are normal float32 numbers."""

_EXP2 = (1.535336188e-4, 1.339887440e-3, 9.618437357e-3, 5.550332471e-2, 2.402264791e-1, 6.931472028e-1, 1.0)
"""2**x for x in [-0.5, 0.5], to the last digit of a float32 (Cephes' exp2f), from the highest power of x down."""


class Emitter:
    """Appends LLVM instructions at the position of its builder."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def call(self, name: str, result: Any, *arguments: Any) -> Any:
        """Call LLVM's intrinsic of that name, which returns the type `result`."""
        function_type = ir.FunctionType(result, [argument.type for argument in arguments])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, function_type, name), arguments)

    def pointer(self, address: Any, offset: Any, size: int, pointee: Any) -> Any:
        """A pointer to a `pointee`, `offset` items of `size` bytes behind the address."""
        constant = ir.Constant(address.type, size)
        place = self.builder.add(address, self.builder.mul(offset, constant))
        return self.builder.inttoptr(place, pointee.as_pointer())

    def load(self, address: Any, offset: Any, pointee: Any) -> Any:
        """Load a `pointee`, `offset` 32-bit numbers behind the address."""
        return self.builder.load(self.pointer(address, offset, 4, pointee), align=4)

    def load_f32(self, address: Any, offset: Any, stored: Any) -> Any:
        """Load LANES floats as float32, `offset` numbers behind the address; they are `stored` as F32X16 or F16X16."""
        if stored is F32X16:
            return self.load(address, offset, F32X16)
        vector = self.builder.load(self.pointer(address, offset, 2, stored), align=2)
        return self.builder.fpext(vector, F32X16)

    def store(self, value: Any, address: Any, offset: Any, size: int) -> None:
        """Store a value `offset` items of `size` bytes behind the address."""
        self.builder.store(value, self.pointer(address, offset, size, value.type), align=size)

    def prefetch(self, address: Any) -> None:
        """Prefetch what lies PREFETCH_BYTES behind the address into the second-level cache."""
        builder = self.builder
        ahead = builder.add(address, ir.Constant(address.type, PREFETCH_BYTES))
        place = builder.inttoptr(ahead, ir.IntType(8).as_pointer())
        # For reading (0), with some locality (2 of 3), data rather than instructions (1).
        hints = [ir.Constant(I32, number) for number in (0, 2, 1)]
        function_type = ir.FunctionType(ir.VoidType(), [place.type, I32, I32, I32])
        builder.call(cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0"), [place, *hints])

    def broadcast(self, number: Any) -> Any:
        """A vector with the number in every lane."""
        vector = ir.VectorType(number.type, LANES)
        one = self.builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(I32, 0))
        return self.builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), ir.Constant(I32X16, [0] * LANES))

    def round_to_int(self, vector: Any) -> Any:
        """Round float32 to the nearest int32, ties to even."""
        return self.call("llvm.lrint.v16i32.v16f32", I32X16, vector)

    def maximum(self, one: Any, other: Any) -> Any:
        """The larger of two float32 in each lane, neither of which is NaN."""
        return self._extremum("llvm.maxnum.v16f32", one, other)

    def minimum(self, one: Any, other: Any) -> Any:
        """The smaller of two float32 in each lane, neither of which is NaN."""
        return self._extremum("llvm.minnum.v16f32", one, other)

    def _extremum(self, name: str, one: Any, other: Any) -> Any:
        function_type = ir.FunctionType(F32X16, [F32X16, F32X16])
        function = cgutils.get_or_insert_function(self.builder.module, function_type, name)
        # Without this flag LLVM adds two instructions that handle lanes which are NaN.
        return self.builder.call(function, [one, other], fastmath=("nnan",))

    def loop(
        self,
        count: Any,
        step: int,
        initial: Sequence[Any],
        body: Callable[[Any, Sequence[Any]], Sequence[Any]],
        *,
        unroll: int = 4,
    ) -> Sequence[Any]:
        """Run `body(index, values)` for the indices 0, step, … below `count`, at least once.

        The values are `initial` in the first iteration, then what the body returned; returns the last of them. The loop
        is unrolled by `unroll`: LLVM would unroll one of a known count into more code than a processor decodes in time.
        """
        builder = self.builder
        before, inside, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
        builder.branch(inside)
        builder.position_at_end(inside)
        index = builder.phi(count.type)
        index.add_incoming(ir.Constant(count.type, 0), before)
        carried = [builder.phi(value.type) for value in initial]
        for phi, value in zip(carried, initial, strict=True):
            phi.add_incoming(value, before)
        results = body(index, carried)
        following = builder.add(index, ir.Constant(count.type, step))
        index.add_incoming(following, builder.block)
        for phi, value in zip(carried, results, strict=True):
            phi.add_incoming(value, builder.block)
        branch = builder.cbranch(builder.icmp_signed("<", following, count), inside, after)
        branch.set_metadata("llvm.loop", self._unrolling(unroll))
        builder.position_at_end(after)
        return results

    def _unrolling(self, times: int) -> Any:
        """Metadata of a loop that is unrolled so many times."""
        module = self.builder.module
        count = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.count"), ir.Constant(I32, times)])
        # LLVM identifies a loop by a metadata node that refers to itself.
        loop = module.add_metadata([count, count])
        loop.operands = (loop, count)
        return loop

    def fma(self, one: Any, other: Any, addend: Any) -> Any:
        """Fused multiply-add: one * other + addend, rounded once."""
        return self.call("llvm.fma.v16f32", F32X16, one, other, addend)

    def polynomial(self, coefficients: Sequence[float], x: Any) -> Any:
        """Evaluate a polynomial of the vector x by Horner's scheme; coefficients from the highest power of x down."""
        result = f32x16(coefficients[0])
        for coefficient in coefficients[1:]:
            result = self.fma(result, x, f32x16(coefficient))
        return result

    def exp2(self, exponent: Any) -> Any:
        """2**x of float32 between -126 and 127, to its last digit."""
        return self.exp2_by(_EXP2, exponent)

    def exp2_by(self, polynomial: Sequence[float], exponent: Any) -> Any:
        """2**x of float32 between -126 and 127, as exactly as the polynomial gives it between -0.5 and 0.5."""
        builder = self.builder
        integer = self.round_to_int(exponent)
        fraction = builder.fsub(exponent, builder.sitofp(integer, F32X16))
        power = builder.bitcast(self.polynomial(polynomial, fraction), I32X16)
        # A float32's exponent is in its bits 23 to 30.
        return builder.bitcast(builder.add(power, builder.shl(integer, i32x16(23))), F32X16)


def f32x16(value: float) -> Any:
    """A constant vector with the float32 value in every lane."""
    return ir.Constant(F32X16, [value] * LANES)


def i32x16(value: int) -> Any:
    """A constant vector with the int32 value in every lane."""
    return ir.Constant(I32X16, [value] * LANES)


def vector_offset(like: Any, vectors: int) -> Any:
    """The count of numbers in that many vectors, as a constant of the type of `like`."""
    return ir.Constant(like.type, vectors * LANES)


def simd_intrinsic(signature: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Turn `emit(emitter, *arguments)` into a function of `arguments` that code compiled by Numba can call.

    `signature` has Numba's types of the result and the arguments. `emit` returns the result as an LLVM value, or None.
    """

    def decorate(emit: Callable[..., Any]) -> Callable[..., Any]:
        def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
            result = emit(Emitter(builder), *arguments)
            return context.get_dummy_value() if result is None else result

        # Numba takes the names of the arguments from this function's signature: those of `emit`, by `wraps`.
        @wraps(emit)
        def define(*_: Any) -> Any:
            return signature, generate

        defined: Callable[..., Any] = intrinsic(define)
        return defined

    return decorate
