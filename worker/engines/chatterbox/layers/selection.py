"""Selects an operation's kernel by instruction set: ours or a library's, as scripts/bench_kernels measures them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from worker.engines.chatterbox.kernels.simd.targets import TARGET, TARGETS, IntegerDotProduct, MicroKernelTarget


def packs_decode_products(target: MicroKernelTarget = TARGET) -> bool:
    """Whether `packed_gemm` computes fp32 products of a decode step; oneDNN otherwise."""
    return target.instruction_set is not None


def tiles_attention(target: MicroKernelTarget = TARGET) -> bool:
    """Whether `attention_fp32` computes the attention of all positions to all; PyTorch otherwise."""
    return target.vector_bits == 512


def _own(target: MicroKernelTarget) -> str:
    return f"own, vectors of {target.vector_bits} bits"


def _integer_kernel(target: MicroKernelTarget, vnni: str, tiles: str | None = None) -> str:
    """Our kernel with that instruction, in matrix tiles with the other one, or what takes its place."""
    if target.integers is None:
        return "refused"
    if target.matrix_tiles and tiles is not None:
        return f"own, {tiles}"
    return f"own, {vnni if target.integers is IntegerDotProduct.VNNI else target.integers.instruction}"


_LIBRARY = "oneDNN"
_WORK: tuple[tuple[str, str, Callable[[MicroKernelTarget], str]], ...] = (
    (
        "`fp32`",
        "products of a decode step",
        lambda target: _own(target) if packs_decode_products(target) else _LIBRARY,
    ),
    ("", "attention of a decode step", _own),
    ("", "other products, convolutions", lambda _: _LIBRARY),
    (
        "",
        "attention of the encoder and the flow",
        lambda target: _own(target) if tiles_attention(target) else "PyTorch",
    ),
    ("`int8`", "products of fewer than 16 rows", lambda target: _integer_kernel(target, "vpdpbusd")),
    ("", "other products, convolutions of stride 1", lambda target: _integer_kernel(target, "vpdpbusd", "tdpbusd")),
    ("", "attention of the flow, scores", lambda target: _integer_kernel(target, "vpdpbusd", "tdpbusd")),
    ("", "attention of the flow, outputs", lambda target: _integer_kernel(target, "vpdpwssd", "tdpbusd")),
    (
        "",
        "attention of a decode step, float16",
        lambda target: "refused" if target.integers is None else _own(target),
    ),
    ("", "everything else", lambda target: "refused" if target.integers is None else "as in `fp32`"),
)


def kernel_table() -> Iterator[tuple[str, ...]]:
    """The rows of the table of kernels, its head first: precision, work, and a column for each target."""
    yield "precision", "work", *(target.name for target in TARGETS)
    for precision, work, kernel in _WORK:
        yield precision, work, *(kernel(target) for target in TARGETS)
