"""`python -m worker`: the options that it refuses, and its messages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import ROOT, environment, wait_until
from tests.support.real_worker import CPU, running, start_worker, worker_options
from worker.contract import Phase
from worker.precision import Precision

BEYOND = max(os.sched_getaffinity(0)) + 1


def refusal(run_dir: Path, **options: str) -> tuple[int, str]:
    """Exit status and last line of a worker that does not start with these options instead of the usual ones."""
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    done = subprocess.run(
        [*worker_options(run_dir).command(), *words],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert list(run_dir.iterdir()) == [], "no socket of a worker that does not start"
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.splitlines()[-1]


@pytest.mark.parametrize("index", ["1", "-1"])
def test_an_index_outside_the_layout(run_dir: Path, index: str) -> None:
    message = f"worker: error: argument --index: {index} is not in a layout of 1"
    assert refusal(run_dir, index=index) == (2, message)


@pytest.mark.parametrize("layout", ["", ";", "0/1", ",1", "0;", "a", "0;0,x"])
def test_an_invalid_layout(run_dir: Path, layout: str) -> None:
    status, message = refusal(run_dir, layout=layout)
    assert status == 2
    assert "--layout" in message
    assert repr(layout) in message


def test_no_threads(run_dir: Path) -> None:
    assert refusal(run_dir, threads="0") == (2, "worker: error: argument --threads: '0' leaves no thread")


def test_an_unknown_engine(run_dir: Path) -> None:
    status, message = refusal(run_dir, engine="parrot")
    assert status == 2
    assert "invalid choice: 'parrot'" in message
    assert "hibari" in message


@pytest.mark.parametrize(
    ("option", "value", "choices"),
    [("runtime", "fast", "'batched', 'stock'"), ("precision", "fp16", "'fp32', 'bf16', 'int8'")],
)
def test_an_unknown_runtime_or_precision(run_dir: Path, option: str, value: str, choices: str) -> None:
    status, message = refusal(run_dir, **{option: value})
    assert status == 2
    assert f"argument --{option}: invalid" in message
    assert value in message
    assert choices in message


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"slots": 2},
            "engine hibari synthesizes one utterance at a time; unset CHORUS_SLOTS (--slots), or run one of: ",
        ),
        (
            {"precision": Precision.INT8},
            "engine hibari computes in fp32 only; unset CHORUS_PRECISION (--precision), or ",
        ),
    ],
)
def test_options_that_the_engine_does_not_support(run_dir: Path, changed: dict[str, Any], message: str) -> None:
    with start_worker(worker_options(run_dir, **changed)) as worker:
        state = worker.await_phase(Phase.FAILED)
    assert state.reason is not None
    assert state.reason.startswith(message)


def test_cpus_outside_the_affinity_mask(run_dir: Path) -> None:
    status, message = refusal(run_dir, layout=f"{CPU},{BEYOND}")
    assert status == 1
    assert message.startswith(f"worker 0: cannot run on CPUs {CPU},{BEYOND}: allowed here are ")


def test_a_missing_folder_of_voices(run_dir: Path, tmp_path: Path) -> None:
    status, message = refusal(run_dir, **{"voices-dir": str(tmp_path / "absent")})
    assert status == 1
    assert message == f"worker 0: there is no folder of voices at {tmp_path}/absent; set CHORUS_VOICES_DIR to one"


def test_a_missing_default_voice_is_reported(run_dir: Path, tmp_path: Path) -> None:
    with start_worker(worker_options(run_dir, voices_dir=tmp_path)) as worker:
        state = worker.await_phase(Phase.FAILED)
    assert state.reason is not None
    assert "there is no voice 'default'" in state.reason


def test_a_worker_whose_model_cannot_load_reports_it_and_ends(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libgomp.so.1: cannot open shared object file')\n")
    options = worker_options(run_dir)
    code = f"""if True:
        from pathlib import Path
        from worker.crash_history import CrashHistory
        from worker.options import WorkerOptions
        from worker.server import serve
        serve(WorkerOptions.from_argv({options.argv()!r}), CrashHistory(Path({str(run_dir)!r}), 0), failed_seconds=5)
    """
    with running([sys.executable, "-c", code], options.socket, PYTHONPATH=str(tmp_path)) as worker:
        state = worker.await_phase(Phase.FAILED)
        assert state.reason == "ImportError: libgomp.so.1: cannot open shared object file"
        assert not state.ready
        wait_until(lambda: worker.process.poll() is not None)
        assert worker.process.returncode == 1
