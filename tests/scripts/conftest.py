from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.machine import Machine
from tests.support.tiny_models import TinyCheckpoint


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.program("python3")
    return machine


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "gate")
    return tmp_path / "gate"


@pytest.fixture
def tiny_turbo(tmp_path: Path, tiny_checkpoint: TinyCheckpoint) -> Path:
    """A folder of checkpoints for the benchmarks, with a tiny Turbo, whose files may be replaced."""
    home = tmp_path / "checkpoints"
    (home / "tiny/turbo").mkdir(parents=True)
    for file in tiny_checkpoint("turbo").iterdir():
        (home / "tiny/turbo" / file.name).symlink_to(file)
    return home
