"""A kernel is compiled by one process at a time; whatever keeps them from taking turns keeps none from compiling."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import ROOT, environment
from worker.engines.chatterbox.kernels import compile_lock
from worker.engines.chatterbox.kernels.compile_lock import compile_once

CODE = """
import sys, torch
from pathlib import Path
from worker.engines.chatterbox.kernels import compile_lock, disk_cache
compile_lock.MAX_WAIT_SECONDS = 600  # of this test, however busy the machine is
disk_cache.enable(Path(sys.argv[1]))
from worker.engines.chatterbox.kernels import quantize
print("ready", flush=True)
sys.stdin.readline()
quantize.quantize_rows(torch.randn(10, 64))
stats = quantize.quantize_rows_of.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


class KernelDispatcher:
    """As Numba has it: a function, and what compiles it."""

    def __init__(self, compile_: Callable[[Any], str]) -> None:
        self.py_func = compile_
        self.compile = compile_


def dispatcher(folder: Path) -> KernelDispatcher:
    def kernel(signature: Any) -> str:
        return f"compiled for {signature}"

    made = KernelDispatcher(kernel)
    compile_once(made, folder)
    return made


def lock_of(folder: Path) -> Path:
    [lock] = folder.iterdir()
    return lock


def test_of_two_processes_at_once_one_compiles(tmp_path: Path) -> None:
    words = [sys.executable, "-W", "ignore", "-c", CODE, str(tmp_path)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        subprocess.Popen(words, cwd=ROOT, env=environment(), **pipes) as one,
        subprocess.Popen(words, cwd=ROOT, env=environment(), **pipes) as other,
    ):
        both = (one, other)
        assert [process.stdout and process.stdout.readline() for process in both] == ["ready\n", "ready\n"]
        for process in both:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        assert sorted(process.communicate()[0] for process in both) == ["0 1\n", "1 0\n"]


def test_a_process_that_hangs_holds_up_none_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = dispatcher(tmp_path)
    assert kernel.compile("float32") == "compiled for float32"
    monkeypatch.setattr(compile_lock, "MAX_WAIT_SECONDS", 0.2)
    with lock_of(tmp_path).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert kernel.compile("float64") == "compiled for float64"


def test_a_kernel_whose_compilation_needs_itself_does_not_wait_for_itself(tmp_path: Path) -> None:
    compiled = []

    def kernel(signature: int) -> str:
        compiled.append(signature)
        return made.compile(signature - 1) if signature else "compiled"

    made = KernelDispatcher(kernel)
    compile_once(made, tmp_path)
    assert made.compile(2) == "compiled"
    assert compiled == [2, 1, 0]


def test_without_a_folder_that_can_be_written_it_compiles(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert dispatcher(tmp_path / "file").compile("float32") == "compiled for float32"


def test_a_file_system_without_locks_holds_up_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert dispatcher(tmp_path).compile("float32") == "compiled for float32"
