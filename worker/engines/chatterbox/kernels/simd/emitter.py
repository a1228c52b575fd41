"""How vector code is written: LLVM's instructions, put one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
"""Numbers of 32 bits in a vector."""
VECTOR_BYTES = 4 * LANES

in_compiled_code: Callable[[Callable[..., Any]], Any] = intrinsic
"""Makes a function that code compiled by Numba can call."""

FLOAT, INT = ir.FloatType(), ir.IntType(32)
FLOATS, INTS = ir.VectorType(FLOAT, LANES), ir.VectorType(INT, LANES)
WORDS, BYTES = ir.VectorType(ir.IntType(16), LANES), ir.VectorType(ir.IntType(8), LANES)

AHEAD = 4096
"""A page: processors look ahead by themselves, but no further than its end."""

_POWER_OF_TWO = (1.535336188e-4, 1.339887440e-3, 9.618437357e-3, 5.550332471e-2, 2.402264791e-1, 6.931472028e-1, 1.0)
"""2**x for x in [-0.5, 0.5], to the last digit of a float32 (Cephes' exp2f), from the highest power of x down."""


class Code:
    """Emits instructions at the builder's place."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def call(self, name: str, result: Any, *arguments: Any) -> Any:
        """What LLVM's function of that name makes of the arguments."""
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
        """Put a value `offset` items of `size` bytes behind an address."""
        self.builder.store(value, self.pointer(address, offset, size, value.type), align=size)

    def fetch(self, address: Any) -> None:
        """Have AHEAD bytes behind an address brought near, into the second cache."""
        builder = self.builder
        place = builder.inttoptr(builder.add(address, ir.Constant(address.type, AHEAD)), ir.IntType(8).as_pointer())
        # To be read, to be kept a while, data.
        how = [ir.Constant(INT, number) for number in (0, 2, 1)]
        kind = ir.FunctionType(ir.VoidType(), [place.type, INT, INT, INT])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0"), [place, *how])

    def spread(self, number: Any) -> Any:
        """A vector of one number."""
        kind = ir.VectorType(number.type, LANES)
        one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(INT, 0))
        return self.builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), ir.Constant(INTS, [0] * LANES))

    def rounded(self, vector: Any) -> Any:
        """To the nearest whole numbers, as integers of 32 bits."""
        return self.call("llvm.lrint.v16i32.v16f32", INTS, vector)

    def larger(self, one: Any, other: Any) -> Any:
        """Of two vectors of float32, lane by lane, none of which is no number."""
        return self._chosen("llvm.maxnum.v16f32", one, other)

    def smaller(self, one: Any, other: Any) -> Any:
        """The same."""
        return self._chosen("llvm.minnum.v16f32", one, other)

    def _chosen(self, name: str, one: Any, other: Any) -> Any:
        function = cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(FLOATS, [FLOATS, FLOATS]), name)
        # Unless it is told so, LLVM looks after lanes that are no numbers, in two more instructions.
        return self.builder.call(function, [one, other], fastmath=("nnan",))

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
        branch = builder.cbranch(builder.icmp_signed("<", following, count), inside, after)
        branch.set_metadata("llvm.loop", self._unrolled())
        builder.position_at_end(after)
        return results

    def _unrolled(self) -> Any:
        """By four: a loop of a known count would become more code than a processor decodes in time."""
        module = self.builder.module
        count = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.count"), ir.Constant(INT, 4)])
        # The name of a loop is a node that names itself.
        name = module.add_metadata([count, count])
        name.operands = (name, count)
        return name

    def fma(self, one: Any, other: Any, added: Any) -> Any:
        """One * other + added, rounded once."""
        return self.call("llvm.fma.v16f32", FLOATS, one, other, added)

    def polynomial(self, coefficients: Sequence[float], x: Any) -> Any:
        """Of the vector x, from the highest power of x down."""
        result = floats(coefficients[0])
        for coefficient in coefficients[1:]:
            result = self.fma(result, x, floats(coefficient))
        return result

    def power_of_two(self, exponent: Any) -> Any:
        """2**x of float32 between -126 and 127, to its last digit."""
        return self.power_by(_POWER_OF_TWO, exponent)

    def power_by(self, polynomial: Sequence[float], exponent: Any) -> Any:
        """2**x of float32 between -126 and 127, as good as `polynomial` is between -0.5 and 0.5."""
        builder = self.builder
        whole = self.rounded(exponent)
        rest = builder.fsub(exponent, builder.sitofp(whole, FLOATS))
        power = builder.bitcast(self.polynomial(polynomial, rest), INTS)
        # A float's exponent is in its bits 23 to 30.
        return builder.bitcast(builder.add(power, builder.shl(whole, ints(23))), FLOATS)


def floats(value: float) -> Any:
    """A vector of one known number."""
    return ir.Constant(FLOATS, [value] * LANES)


def ints(value: int) -> Any:
    """A vector of one known whole number."""
    return ir.Constant(INTS, [value] * LANES)


def vector_code(signature: Any, emit: Callable[..., Any]) -> Any:
    """What Numba compiles a call to: `emit` gets a `Code` and the arguments, and gives the result or None."""

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        result = emit(Code(builder), *arguments)
        return context.get_dummy_value() if result is None else result

    return signature, generate


def lanes(like: Any, vectors: int) -> Any:
    """How many numbers so many vectors hold, as a number of the kind of `like`."""
    return ir.Constant(like.type, vectors * LANES)
