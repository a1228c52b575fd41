"""The number formats that a batched engine can compute in, and which of them this host's processor supports.

Imports no engine library: `chorus serve` prints what each precision gains, and refuses one that this processor does not
support, before any worker starts. Everything but `detect_processor` is pure.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Precision(StrEnum):
    """The arithmetic of matrix products; everything between them is float32."""

    FP32 = "fp32"
    """As upstream computes: equal to it but for the order of additions."""
    BF16 = "bf16"
    """Weights and activations of the products in bfloat16, accumulated in float32."""
    INT8 = "int8"
    """Weights in 8 bits with a scale for each channel, activations in 8 bits with a scale for each position."""


INSTRUCTION_SET_NAMES = {
    "avx2": "AVX2",
    "avx512bw": "AVX-512",
    "avx512_vnni": "AVX512-VNNI",
    "avx512_bf16": "AVX512-BF16",
    "amx_int8": "AMX-INT8",
    "amx_bf16": "AMX-BF16",
    "bf16": "BF16",
}
"""Instruction sets that decide how fast products are: Linux's flag -> the vendor's name; first x86, then Arm.

AVX-512 counts with its products of int16, which every such server processor has.
"""

_INT8_PRODUCTS = {
    "amx_int8": "AMX-INT8 (tdpbusd)",
    "avx512_vnni": "AVX512-VNNI (vpdpbusd)",
    "avx512bw": "AVX-512 (vpmaddwd)",
    "avx2": "AVX2 (vpmaddwd)",
}
"""The instruction of int8 products on each instruction set, the fastest first."""

REQUIRED_INSTRUCTION_SETS = {
    Precision.BF16: ("avx512_bf16", "amx_bf16", "bf16"),
    Precision.INT8: tuple(_INT8_PRODUCTS),
}
"""A precision needs one of these instruction sets; fp32 runs on any processor."""

_REQUIREMENTS = {
    Precision.BF16: "AVX512-BF16 or AMX-BF16 (on Arm: BF16)",
    Precision.INT8: "AVX2",
}

_WITHOUT_THEM = {
    Precision.BF16: "its products would be emulated, slower than fp32",
    Precision.INT8: "it has no kernels for int8 products",
}

_GAINS = {
    Precision.FP32: "as upstream computes",
    Precision.BF16: "half of the weights to read",
    Precision.INT8: "a quarter of the weights to read",
}


@dataclass(frozen=True)
class Processor:
    """The properties of a processor that decide which precisions it supports."""

    name: str
    instruction_sets: frozenset[str]
    """The keys of `INSTRUCTION_SET_NAMES` that all of its cores have."""

    def supports(self, precision: Precision) -> bool:
        """Whether the precision is faster than fp32 here; always true of fp32 itself."""
        return precision is Precision.FP32 or not self.instruction_sets.isdisjoint(REQUIRED_INSTRUCTION_SETS[precision])

    def __str__(self) -> str:
        return f"{self.name}, with {_listed(self.instruction_sets) or 'none of the instruction sets that matter here'}"


def parse_cpuinfo(cpuinfo: str, *, machine: str) -> Processor:
    """Read a processor from the text of /proc/cpuinfo; `machine` is its name if the text contains none."""
    name, common = machine, None
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        match key.strip():
            case "model name":
                name = value.strip() or machine
            case "flags" | "Features":
                flags = frozenset(value.split())
                common = flags if common is None else common & flags
    return Processor(name, (common or frozenset()) & INSTRUCTION_SET_NAMES.keys())


def detect_processor(root: Path = Path("/")) -> Processor:
    """Read this host's processor from the /proc under `root`; without instruction sets if that cannot be read."""
    try:
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return parse_cpuinfo(text, machine=platform.machine())


def unsupported_reason(precision: Precision, processor: Processor) -> str | None:
    """Why the processor does not support the precision, with the ones to choose instead; None if it does."""
    if processor.supports(precision):
        return None
    others = " or ".join(other for other in reversed(Precision) if processor.supports(other))
    return (
        f"precision {precision} needs a processor with {_REQUIREMENTS[precision]}, and this is {processor}: "
        f"{_WITHOUT_THEM[precision]}; choose {others} (CHORUS_PRECISION, --precision)"
    )


def precision_remarks(chosen: Precision, processor: Processor) -> Iterator[str]:
    """Describe the processor, then what each precision gains on it: a sentence each."""
    yield f"Processor: {processor}."
    for precision in Precision:
        name = f"{precision}, as chosen" if precision is chosen else precision
        if processor.supports(precision):
            products = _products(precision, processor)
            yield f"{name}: {_GAINS[precision]}{f', products by {products}' if products else ''}."
        else:
            yield f"{name}: not on this processor, which lacks {_REQUIREMENTS[precision]}."


def _products(precision: Precision, processor: Processor) -> str:
    """The instruction sets that products use on the processor, or "" if none of those that matter."""
    if precision is Precision.INT8:
        return next(name for flag, name in _INT8_PRODUCTS.items() if flag in processor.instruction_sets)
    required = REQUIRED_INSTRUCTION_SETS.get(precision, ("avx2", "avx512bw"))
    return _listed(processor.instruction_sets.intersection(required))


def _listed(flags: frozenset[str]) -> str:
    return ", ".join(name for flag, name in INSTRUCTION_SET_NAMES.items() if flag in flags)
