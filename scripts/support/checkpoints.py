"""Checkpoints of random weights, made where there is none yet."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from balancer.settings_groups import REPOSITORY
from worker.checkpoints.catalogue import CHECKPOINTS, CheckpointError, find


class Size(StrEnum):
    """How large a model is made."""

    FULL = "full"
    TINY = "tiny"


@contextmanager
def home_of(kept: Path | None) -> Iterator[Path]:
    """The folder where checkpoints are kept, or a temporary one."""
    if kept is not None:
        yield kept.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="chorus-checkpoints-") as name:
        yield Path(name)


def checkpoint(engine: str, size: Size, home: Path, tell: Callable[[str], None]) -> Path:
    """The folder of a checkpoint, SIZE/ENGINE in `home`, made if it is not there. Raises CheckpointError."""
    folder = home / size / engine
    if not folder.exists():
        tell(f"{engine}: making a checkpoint, {size}")
        # Whole or not at all: an interruption leaves nothing that looks like a checkpoint.
        with tempfile.TemporaryDirectory(prefix=f".{engine}-", dir=_made(folder.parent)) as aside:
            made = Path(aside) / engine
            command = [sys.executable, str(REPOSITORY / "scripts/support/make_checkpoint.py"), engine, str(made)]
            done = subprocess.run(
                [*command, "--tiny"] if size is Size.TINY else command,
                capture_output=True,
                text=True,
                check=False,
                env=os.environ | {"PYTHONWARNINGS": "ignore"},
            )
            if done.returncode:
                raise CheckpointError(f"{engine}: no checkpoint could be made:\n{done.stderr.strip()}")
            made.rename(folder)
    find(CHECKPOINTS[engine], model_dir=folder, revision=None)
    if not (folder / "conds.pt").exists():
        raise CheckpointError(f"{engine}: the checkpoint in {folder} has no voice of its own (conds.pt)")
    return folder


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
