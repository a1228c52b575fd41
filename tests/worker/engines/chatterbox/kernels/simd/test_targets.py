"""The target of a processor, and blocks that its registers hold."""

from __future__ import annotations

import pytest

from worker.engines.chatterbox.kernels.simd import targets
from worker.engines.chatterbox.kernels.simd.targets import (
    AMX,
    AVX2,
    AVX512,
    AVX512_VNNI,
    BASELINE,
    NR_VECTORS,
    TARGETS,
    MicroKernelTarget,
)
from worker.precision import Precision, Processor


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("avx2 avx512bw avx512_vnni avx512_bf16 amx_int8", AMX),
        ("avx2 avx512bw avx512_vnni avx512_bf16", AVX512_VNNI),
        ("avx2 avx512bw", AVX512),
        ("avx2", AVX2),
        ("bf16", BASELINE),
        ("", BASELINE),
    ],
)
def test_a_processor_has_the_fastest_target_that_it_runs(
    monkeypatch: pytest.MonkeyPatch, flags: str, expected: MicroKernelTarget
) -> None:
    monkeypatch.setattr(targets, "may_use_tiles", lambda: True)
    processor = Processor("one", frozenset(flags.split()))
    assert next(target for target in TARGETS if target.runs_on(processor)) is expected
    assert processor.supports(Precision.INT8) == (expected.integers is not None)


def test_tiles_that_the_operating_system_refuses_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "may_use_tiles", lambda: False)
    processor = Processor("one", frozenset(["avx2", "avx512bw", "avx512_vnni", "amx_int8"]))
    assert next(target for target in TARGETS if target.runs_on(processor)) is AVX512_VNNI


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_blocks_leave_registers_for_operands(target: MicroKernelTarget) -> None:
    rows = [mr for mr, _ in target.packed_blocks]
    assert rows == sorted(rows)
    assert target.many_rows_mr in rows
    for mr, vectors in target.packed_blocks:
        assert mr * vectors <= target.accumulators
        assert NR_VECTORS % vectors == 0


def test_a_target_says_what_it_multiplies_by() -> None:
    assert str(AMX) == ("32 registers of 512 bits (AMX-INT8), products of int8 by vpdpbusd, of many rows by tdpbusd")
    assert str(AVX512_VNNI) == "32 registers of 512 bits (AVX512-VNNI), products of int8 by vpdpbusd"
    assert str(AVX2) == "16 registers of 256 bits (AVX2), products of int8 by vpmaddwd"
    assert str(BASELINE) == "16 registers of 128 bits (none of these), no products of int8"
