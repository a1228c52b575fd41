"""Checkpoints of random weights, made where they do not exist yet."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from balancer.runtime.repository import REPOSITORY
from scripts.support.console import report_progress
from worker.checkpoints.catalogue import CHECKPOINTS, MEANFLOW, CheckpointError, find

CheckpointsOption = Annotated[
    Path | None,
    typer.Option(help="Folder of checkpoints, as SIZE/ENGINE, 2 to 3 GB each. Default: a temporary folder."),
]
"""An option that several commands share."""


class Size(StrEnum):
    """The size of a model."""

    FULL = "full"
    """The layers and widths of the trained model."""
    TINY = "tiny"
    """Few layers of each kind, for tests."""


@contextmanager
def checkpoint_home(folder: Path | None) -> Iterator[Path]:
    """The absolute path of the folder of all checkpoints; without `folder`, a temporary one."""
    if folder is not None:
        yield folder.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="chorus-checkpoints-") as name:
        yield Path(name)


def ensure_checkpoint(engine: str, size: Size, home: Path, *, meanflow: bool = False) -> Path:
    """The folder of a checkpoint, SIZE/ENGINE in `home`; the checkpoint is made if the folder does not exist.

    With `meanflow`, a mean flow lies beside its files. Raises CheckpointError if it cannot be made, or if the folder
    does not hold a complete checkpoint.
    """
    folder = home / size / engine
    if not folder.exists():
        report_progress(f"{engine}: making a checkpoint, {size}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Made elsewhere and then renamed: an interruption must not leave an incomplete checkpoint.
        with tempfile.TemporaryDirectory(prefix=f".{engine}-", dir=folder.parent) as temporary:
            unfinished = Path(temporary) / engine
            _make("make_checkpoint", engine, unfinished, *(("--tiny",) if size is Size.TINY else ()))
            unfinished.rename(folder)
    if meanflow and not all((folder / name).exists() for name in MEANFLOW.files):
        _make("make_mean_flow", engine, folder)
    find(CHECKPOINTS[engine], model_dir=folder, revision=None)
    if not (folder / "conds.pt").exists():
        raise CheckpointError(f"{engine}: the checkpoint in {folder} has no built-in voice (conds.pt)")
    return folder


def _make(script: str, engine: str, folder: Path, *options: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"scripts.support.{script}", engine, str(folder), *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )
    if done.returncode:
        raise CheckpointError(f"{engine}: no checkpoint could be made:\n{done.stderr.strip()}")
