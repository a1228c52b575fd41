"""The precisions that processors support, by the flags of common ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker.precision import (
    INSTRUCTION_SET_NAMES,
    Precision,
    Processor,
    detect_processor,
    parse_cpuinfo,
    precision_remarks,
    unsupported_reason,
)

FP32, BF16, INT8 = Precision

SKYLAKE = "fpu sse4_2 avx avx2 fma avx512f avx512bw avx512vl avx512dq"
HOSTS = {
    "c5 (Skylake)": (SKYLAKE, {FP32, INT8}),
    "c6i (Ice Lake)": (f"{SKYLAKE} avx512_vnni avx512_vbmi2", {FP32, INT8}),
    "c7i (Sapphire Rapids)": (
        f"{SKYLAKE} avx512_vnni avx_vnni avx512_bf16 amx_bf16 amx_tile amx_int8",
        {FP32, BF16, INT8},
    ),
    "Sapphire Rapids whose host hides AMX": (f"{SKYLAKE} avx512_vnni", {FP32, INT8}),
    "c6a (Zen 3)": ("fpu sse4_2 avx avx2 fma", {FP32, INT8}),
    "c7a (Zen 4)": (f"{SKYLAKE} avx512_vnni avx512_bf16", {FP32, BF16, INT8}),
    "Alder Lake": ("fpu sse4_2 avx avx2 fma avx_vnni", {FP32, INT8}),
    "Ivy Bridge": ("fpu sse4_2 avx", {FP32}),
    "no AVX at all": ("fpu sse4_2", {FP32}),
}
ARM = {
    "c6g (Graviton 2)": ("fp asimd crc32 atomics fphp asimdhp asimddp", {FP32}),
    "c7g (Graviton 3)": ("fp asimd atomics asimddp sve bf16 i8mm svebf16", {FP32, BF16}),
    "Cortex-A72": ("fp asimd evtstrm crc32", {FP32}),
}


def x86(flags: str, name: str = "A processor @ 3 GHz", cores: int = 2) -> str:
    core = f"processor\t: 0\nvendor_id\t: X\nmodel name\t: {name}\nflags\t\t: {flags}\nvmx flags\t: bf16\n\n"
    return core * cores


def arm(flags: str) -> str:
    return f"processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: {flags}\nCPU part\t: 0xd0c\n\n"


@pytest.mark.parametrize(("flags", "supported"), HOSTS.values(), ids=HOSTS)
def test_supported_precisions_on_x86(flags: str, supported: set[Precision]) -> None:
    found = parse_cpuinfo(x86(flags), machine="x86_64")
    assert found.name == "A processor @ 3 GHz"
    assert {precision for precision in Precision if found.supports(precision)} == supported
    assert {precision for precision in Precision if unsupported_reason(precision, found) is None} == supported


@pytest.mark.parametrize(("flags", "supported"), ARM.values(), ids=ARM)
def test_supported_precisions_on_arm(flags: str, supported: set[Precision]) -> None:
    found = parse_cpuinfo(arm(flags), machine="aarch64")
    assert found.name == "aarch64"
    assert {precision for precision in Precision if unsupported_reason(precision, found) is None} == supported


def test_instruction_sets_of_only_some_cores_do_not_count() -> None:
    text = x86("avx2 avx512bw avx512_vnni", cores=1) + x86("avx2 avx512bw", cores=1)
    assert parse_cpuinfo(text, machine="x86_64").instruction_sets == {"avx2", "avx512bw"}


@pytest.mark.parametrize("text", ["", "nonsense", "flags", "model name :", "flags :\nFeatures :"])
def test_an_unreadable_description_has_no_instruction_sets(text: str) -> None:
    assert parse_cpuinfo(text, machine="riscv64") == Processor("riscv64", frozenset())
    assert unsupported_reason(FP32, parse_cpuinfo(text, machine="riscv64")) is None


def test_a_refusal_names_the_missing_and_present_instruction_sets_and_the_alternatives() -> None:
    ice_lake = parse_cpuinfo(x86(HOSTS["c6i (Ice Lake)"][0], "Xeon 8375C"), machine="x86_64")
    assert unsupported_reason(BF16, ice_lake) == (
        "precision bf16 needs a processor with AVX512-BF16 or AMX-BF16 (on Arm: BF16), and this is Xeon 8375C, with "
        "AVX2, AVX-512, AVX512-VNNI: its products would be emulated, slower than fp32; choose int8 or fp32 "
        "(CHORUS_PRECISION, --precision)"
    )
    graviton = parse_cpuinfo(arm(ARM["c7g (Graviton 3)"][0]), machine="aarch64")
    assert unsupported_reason(INT8, graviton) == (
        "precision int8 needs a processor with AVX2, and this is aarch64, with BF16: it has no kernels for int8 "
        "products; choose bf16 or fp32 (CHORUS_PRECISION, --precision)"
    )
    nothing = unsupported_reason(INT8, Processor("i486", frozenset()))
    assert nothing is not None
    assert "this is i486, with none of the instruction sets that matter here" in nothing
    assert "choose fp32 (" in nothing


def test_remarks_on_ice_lake() -> None:
    found = parse_cpuinfo(x86(HOSTS["c6i (Ice Lake)"][0], "Xeon 8375C"), machine="x86_64")
    assert list(precision_remarks(INT8, found)) == [
        "Processor: Xeon 8375C, with AVX2, AVX-512, AVX512-VNNI.",
        "fp32: as upstream computes, products by AVX2, AVX-512.",
        "bf16: not on this processor, which lacks AVX512-BF16 or AMX-BF16 (on Arm: BF16).",
        "int8, as chosen: a quarter of the weights to read, products by AVX512-VNNI (vpdpbusd).",
    ]


def test_remarks_on_sapphire_rapids() -> None:
    found = parse_cpuinfo(x86(HOSTS["c7i (Sapphire Rapids)"][0], "Xeon 8488C"), machine="x86_64")
    assert list(precision_remarks(FP32, found))[1:] == [
        "fp32, as chosen: as upstream computes, products by AVX2, AVX-512.",
        "bf16: half of the weights to read, products by AVX512-BF16, AMX-BF16.",
        "int8: a quarter of the weights to read, products by AMX-INT8 (tdpbusd).",
    ]


@pytest.mark.parametrize(
    ("host", "products"),
    [("c5 (Skylake)", "AVX-512 (vpmaddwd)"), ("c6a (Zen 3)", "AVX2 (vpmaddwd)"), ("Alder Lake", "AVX2 (vpmaddwd)")],
)
def test_remarks_on_int8_without_vnni(host: str, products: str) -> None:
    found = parse_cpuinfo(x86(HOSTS[host][0]), machine="x86_64")
    assert (
        list(precision_remarks(FP32, found))[-1] == f"int8: a quarter of the weights to read, products by {products}."
    )


def test_remarks_on_a_processor_without_instruction_sets() -> None:
    assert list(precision_remarks(FP32, Processor("i486", frozenset())))[1] == "fp32, as chosen: as upstream computes."


def test_proc_cpuinfo_is_read(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(x86("avx2", "Ünreadable"), encoding="latin-1")
    assert detect_processor(tmp_path).instruction_sets == {"avx2"}
    assert detect_processor(tmp_path / "nowhere") == Processor(os.uname().machine, frozenset())


def test_this_host_has_a_processor() -> None:
    found = detect_processor()
    assert found.name
    assert found.instruction_sets <= INSTRUCTION_SET_NAMES.keys()
