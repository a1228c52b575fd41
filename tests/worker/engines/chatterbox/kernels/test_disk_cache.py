"""Compiled kernels are cached in the given folder, and the next process finds them there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.harness import ROOT, environment
from worker.engines.chatterbox.kernels import disk_cache
from worker.engines.chatterbox.kernels.simd.targets import TARGETS

CODE = """
import sys, numpy, torch
from pathlib import Path
from worker.engines.chatterbox.kernels import disk_cache
disk_cache.enable(Path(sys.argv[1]))
import librosa
from numba import config
from worker.engines.chatterbox.kernels import quantize
quantize.quantize_rows(torch.randn(10, 64))  # a kernel that calls others, and soon compiled
assert str(disk_cache.folder()).startswith(sys.argv[1])
assert config.CACHE_DIR == ""
print(sum(quantize.quantize_rows_of.stats.cache_hits.values()))
"""


def run(cache: Path) -> int:
    """The kernels that a new process takes from the cache."""
    words = [sys.executable, "-W", "ignore", "-c", CODE, str(cache)]
    return int(subprocess.run(words, cwd=ROOT, env=environment(), check=True, capture_output=True, text=True).stdout)


def test_the_next_process_finds_what_one_has_compiled(tmp_path: Path) -> None:
    assert run(tmp_path) == 0
    cached = {file.name for file in tmp_path.rglob("*.nbi")}
    assert any(name.startswith("quantize.quantize_rows_of") for name in cached)
    assert run(tmp_path) == 1
    assert {file.name for file in tmp_path.rglob("*.nbi")} == cached


def test_kernels_of_another_instruction_set_lie_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_cache, "_enabled", [])
    folders = set()
    for target in TARGETS:
        monkeypatch.setattr(disk_cache, "TARGET", target)
        disk_cache.enable(tmp_path)
        folders.add(disk_cache.folder())
    assert len(folders) == len(TARGETS)
