"""Compiled kernels are kept where it was said, and found there by the next process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.harness import ROOT, environment

CODE = """
import sys, numpy, torch
from pathlib import Path
from worker.engines.chatterbox.kernels.disk_cache import folder, keep
keep(Path(sys.argv[1]))
import librosa
from numba import config
from worker.engines.chatterbox.kernels import attention_fp32
states = torch.randn(10, 64)
attention_fp32.attention_float(states, states, states)
assert str(folder()).startswith(sys.argv[1])
assert config.CACHE_DIR == ""
print(sum(attention_fp32._attend.stats.cache_hits.values()))
"""


def run(cache: Path) -> int:
    words = [sys.executable, "-W", "ignore", "-c", CODE, str(cache)]
    return int(subprocess.run(words, cwd=ROOT, env=environment(), check=True, capture_output=True, text=True).stdout)


def test_what_one_process_has_compiled_the_next_one_finds(tmp_path: Path) -> None:
    assert run(tmp_path) == 0
    kept = {file.name for file in tmp_path.rglob("*.nbi")}
    assert any(name.startswith("attention_fp32._attend") for name in kept)
    assert run(tmp_path) == 1
    assert {file.name for file in tmp_path.rglob("*.nbi")} == kept
