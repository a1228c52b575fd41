"""The comparison of inference runtimes: the real program on tiny models, whose outputs must agree in every runtime."""

from __future__ import annotations

import json
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from scripts.benchmarks.backends import backend as module
from scripts.benchmarks.backends.backend import NAMES, Backend, InferenceRuntime, Workload, supported_backends
from tests.support.bench import TIMEOUT, bench, tiny_options
from worker.precision import Precision, Processor, detect_processor

FRAMES = 50
ROWS = (1, 3)
TOLERANCES = {Precision.FP32: 1e-5, Precision.BF16: 0.1, Precision.INT8: 0.05}
"""Largest difference from PyTorch's outputs, as a share of their range."""

OLD = Processor("an old one", frozenset())
NEW = Processor("a new one", frozenset({"avx512bw", "avx512_vnni", "avx512_bf16"}))


def backend_of(timings: dict[str, Any]) -> Backend:
    fields = timings["backend"]
    return Backend(InferenceRuntime(fields["runtime"]), Precision(fields["precision"]), fields["shares_prefix"])


def test_a_processor_without_the_instructions_is_measured_in_float32_only() -> None:
    assert {one.precision for one in supported_backends(OLD)} == {Precision.FP32}
    assert {one.runtime for one in supported_backends(OLD)} == set(InferenceRuntime)


def test_every_runtime_is_measured_in_all_of_its_precisions() -> None:
    backends = list(supported_backends(NEW))
    assert len(backends) == len(set(backends)) == 10
    assert {one.precision for one in backends if one.runtime is InferenceRuntime.OWN} == set(Precision)
    assert [one.precision for one in backends if not one.shares_prefix] == [Precision.FP32]


def test_a_runtime_that_is_not_installed_is_known_before_it_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "openvino" else name)
    missing = {one.runtime: one.missing_modules for one in supported_backends(OLD)}
    assert missing == {
        InferenceRuntime.TORCH: [],
        InferenceRuntime.OWN: [],
        InferenceRuntime.ONNXRUNTIME: [],
        InferenceRuntime.OPENVINO: ["openvino"],
    }


def test_all_backends_compute_the_same_and_the_tables_have_their_speeds(tiny_turbo: Path, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    options = ["--rows", "1,3", "--threads", "1", "--rounds", "1", "--seconds", "0", "--frames", str(FRAMES)]
    with bench("backends", *tiny_options(tiny_turbo), *options) as program:
        process = program.start("--json", str(file))
        tables, messages = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, messages
        assert program.leftovers() == []

    result = json.loads(file.read_text())
    backends = list(supported_backends(detect_processor()))
    for workload, sizes in ((Workload.DECODE, ROWS), (Workload.ESTIMATOR, (FRAMES,))):
        installed = [one for one in backends if not one.missing_modules and one.runs(workload)]
        measured = {backend_of(timings): timings for timings in result["timings"] if timings["workload"] == workload}
        assert list(measured) == installed
        for one, timings in measured.items():
            [difference] = timings["differences"]
            assert (difference > 0) == (one.runtime is not InferenceRuntime.TORCH)
            assert difference < TOLERANCES[one.precision], one
            steps = {int(size): len(seconds) for size, seconds in timings["seconds"].items()}
            assert steps == dict.fromkeys(sizes, 1)
    torch = result["timings"][0]
    rates = [size / torch["seconds"][str(size)][0] for size in ROWS]
    assert f"| PyTorch | fp32 | 1 | {rates[0]:.0f} | {rates[1]:.0f} | 0 |" in tables
    for one in backends:
        if one.missing_modules:
            missing = ", ".join(one.missing_modules)
            assert (
                f"Not measured: {one} {one.precision}, because {missing} is not installed; the extra `bench`" in tables
            )


def test_an_interruption_leaves_no_process_behind(tiny_turbo: Path) -> None:
    options = ["--rows", "1", "--threads", "1", "--seconds", "0", "--frames", str(FRAMES)]
    with bench("backends", *tiny_options(tiny_turbo), *options) as program:
        process = program.start()
        assert process.stderr
        # By then the first backend has had its turn, and the second one has begun.
        assert any("round 1" in before and "round 1" in line for before, line in pairwise(process.stderr))
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIMEOUT)
        assert process.returncode not in {0, None}
        assert program.leftovers() == []


def test_backends_have_different_names() -> None:
    names = [f"{one} {one.precision}" for one in supported_backends(NEW)]
    assert len(set(names)) == len(names)
    assert str(Backend(InferenceRuntime.OPENVINO, Precision.INT8)) == NAMES[InferenceRuntime.OPENVINO]
