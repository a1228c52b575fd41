"""The comparison of runtimes: the real program on tiny models, whose results must agree in every runtime."""

from __future__ import annotations

import json
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from scripts.benchmarks.backends import backend as module
from scripts.benchmarks.backends.backend import NAMES, Contender, Runtime, contenders
from tests.support.bench import TIMEOUT, started
from worker.precision import Precision, Processor, detect_processor

FRAMES = 50
ROWS = (1, 3)
NEAR = {Precision.FP32: 1e-5, Precision.BF16: 0.1, Precision.INT8: 0.05}
"""How far results may be from torch's, as a share of their range."""

OLD = Processor("an old one", frozenset({"avx2"}))
NEW = Processor("a new one", frozenset({"avx512f", "avx512_vnni", "avx512_bf16"}))


def contender(outcome: dict[str, Any]) -> Contender:
    told = outcome["contender"]
    return Contender(Runtime(told["runtime"]), Precision(told["precision"]), told["shared"])


def test_a_processor_without_the_instructions_is_measured_in_float32_only() -> None:
    assert {one.precision for one in contenders(OLD)} == {Precision.FP32}
    assert {one.runtime for one in contenders(OLD)} == set(Runtime)


def test_every_runtime_comes_in_every_precision_that_it_has() -> None:
    found = list(contenders(NEW))
    assert len(found) == len(set(found)) == 10
    assert {one.precision for one in found if one.runtime is Runtime.OWN} == set(Precision)
    assert [one.precision for one in found if not one.shared] == [Precision.FP32]


def test_what_is_not_installed_is_known_before_it_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "openvino" else name)
    missing = {one.runtime: one.missing for one in contenders(OLD)}
    assert missing == {Runtime.TORCH: [], Runtime.OWN: [], Runtime.ONNXRUNTIME: [], Runtime.OPENVINO: ["openvino"]}


def test_all_runtimes_compute_the_same_and_the_tables_tell_how_fast(tiny_turbo: Path, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    options = ["--rows", "1,3", "--threads", "1", "--rounds", "1", "--seconds", "0", "--frames", str(FRAMES)]
    with started("backends", tiny_turbo, *options) as bench:
        process = bench.start("--json", str(file))
        tables, messages = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, messages
        assert bench.left() == []

    result = json.loads(file.read_text())
    for work, sizes in (("decode", ROWS), ("estimator", (FRAMES,))):
        able = [one for one in contenders(detect_processor()) if not one.missing and one.does(work)]
        outcomes = {contender(outcome): outcome for outcome in result["outcomes"] if outcome["work"] == work}
        assert list(outcomes) == able
        for one, outcome in outcomes.items():
            [difference] = outcome["differences"]
            assert (difference > 0) == (one.runtime is not Runtime.TORCH)
            assert difference < NEAR[one.precision], one
            steps = {int(size): len(seconds) for size, seconds in outcome["seconds"].items()}
            assert steps == dict.fromkeys(sizes, 1)
    torch = result["outcomes"][0]
    rates = [size / torch["seconds"][str(size)][0] for size in ROWS]
    assert f"| torch | fp32 | 1 | {rates[0]:.0f} | {rates[1]:.0f} | 0 |" in tables
    for one in contenders(detect_processor()):
        if one.missing:
            assert (
                f"Not measured: {one} {one.precision}, for lack of {', '.join(one.missing)}; the extra `bench`"
                in tables
            )


def test_an_interruption_leaves_no_contender_behind(tiny_turbo: Path) -> None:
    with started("backends", tiny_turbo, "--rows", "1", "--threads", "1") as bench:
        process = bench.start()
        assert process.stderr
        # The first has had its turn by then, the second is on its way.
        assert any("round 1" in before and "round 1" in line for before, line in pairwise(process.stderr))
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIMEOUT)
        assert process.returncode not in {0, None}
        assert bench.left() == []


def test_names_tell_them_apart() -> None:
    names = [f"{one} {one.precision}" for one in contenders(NEW)]
    assert len(set(names)) == len(names)
    assert str(Contender(Runtime.OPENVINO, Precision.INT8)) == NAMES[Runtime.OPENVINO]
