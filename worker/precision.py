"""In which numbers a batched engine computes, and which of them this host's processor has instructions for.

Imports no engine library: `chorus serve` says what a precision gains, and refuses one that gains nothing, before any
worker starts. All but `processor` is a function of what Linux says of the processor.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Precision(StrEnum):
    """How products are computed; what is between them is always float32."""

    FP32 = "fp32"
    """As upstream computes: equal to it but for the order of additions."""
    BF16 = "bf16"
    """Weights and activations of the products in bfloat16, summed up in float32."""
    INT8 = "int8"
    """Weights in 8 bits with a scale for each channel, activations in 8 bits with a scale for each position."""


LABELS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX512-VNNI",
    "avx512_bf16": "AVX512-BF16",
    "amx_bf16": "AMX-BF16",
    "bf16": "BF16",
}
"""Instruction sets that decide how fast products are, by Linux's names: those of x86, then those of Arm."""

INSTRUCTIONS = {
    Precision.BF16: ("avx512_bf16", "amx_bf16", "bf16"),
    Precision.INT8: ("avx512_vnni",),
}
"""A precision gains where the processor has one of these; fp32 takes whatever there is."""

_NEEDS = {
    Precision.BF16: "AVX512-BF16 or AMX-BF16 (on Arm: BF16)",
    Precision.INT8: "AVX512-VNNI",
}

_WITHOUT = {
    Precision.BF16: "its products would be emulated, slower than fp32",
    Precision.INT8: "its kernels are made for vectors of 512 bits",
}

_GAINS = {
    Precision.FP32: "as upstream computes",
    Precision.BF16: "half of the weights to read",
    Precision.INT8: "a quarter of the weights to read",
}


@dataclass(frozen=True)
class Processor:
    """What counts of a host's processor."""

    name: str
    has: frozenset[str]
    """Its instruction sets among `LABELS`, those that all of its cores have."""

    def gains(self, precision: Precision) -> bool:
        """Whether the precision is worth its loss here: fp32, which loses nothing, always."""
        return precision is Precision.FP32 or not self.has.isdisjoint(INSTRUCTIONS[precision])

    def __str__(self) -> str:
        return f"{self.name}, with {_listed(self.has) or 'none of the instruction sets that count here'}"


def parse(cpuinfo: str, *, machine: str) -> Processor:
    """The processor that the text of /proc/cpuinfo describes; `machine` names one that has no name there."""
    name, common = machine, None
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        match key.strip():
            case "model name":
                name = value.strip() or machine
            case "flags" | "Features":
                flags = frozenset(value.split())
                common = flags if common is None else common & flags
    return Processor(name, (common or frozenset()) & LABELS.keys())


def processor(root: Path = Path("/")) -> Processor:
    """The one of this host, as its /proc tells; nothing is known of one whose /proc cannot be read."""
    try:
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return parse(text, machine=platform.machine())


def unsupported(precision: Precision, found: Processor) -> str | None:
    """Why a precision is refused on this processor, with what to choose; None where it gains."""
    if found.gains(precision):
        return None
    others = " or ".join(other for other in reversed(Precision) if found.gains(other))
    return (
        f"precision {precision} needs a processor with {_NEEDS[precision]}, and this is {found}: "
        f"{_WITHOUT[precision]}; choose {others} (CHORUS_PRECISION, --precision)"
    )


def remarks(chosen: Precision, found: Processor) -> Iterator[str]:
    """What each precision gains on this processor: a sentence each."""
    yield f"Processor: {found}."
    for precision in Precision:
        name = f"{precision}, as chosen" if precision is chosen else precision
        if found.gains(precision):
            by = found.has.intersection(INSTRUCTIONS.get(precision, ("avx2", "avx512f")))
            yield f"{name}: {_GAINS[precision]}{f', products by {_listed(by)}' if by else ''}."
        else:
            yield f"{name}: not on this processor, which lacks {_NEEDS[precision]}."


def _listed(flags: frozenset[str]) -> str:
    return ", ".join(label for flag, label in LABELS.items() if flag in flags)
