"""Tiny checkpoints of random weights for the Chatterbox engines, each made when a test first needs it."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from tests.support.harness import ROOT, environment
from tests.support.shared_folder import make_once
from worker.cards import LANGUAGE_PACKS
from worker.checkpoints.catalogue import CHECKPOINTS

MODELS = tuple(name for name in CHECKPOINTS if name not in {pack.engine for pack in LANGUAGE_PACKS})
"""Engines whose models differ in more than their weights: a language pack is `multilingual-v3` with others."""
PACK = "multilingual-es-es"
"""A language pack."""

TinyCheckpoint = Callable[[str], Path]
"""Returns the folder of an engine's tiny checkpoint, after making it if necessary. Tests must not modify it."""


def tiny_checkpoint(engine: str) -> Path:
    """The folder of an engine's tiny checkpoint, 0.3 to 0.6 GB, made once for the whole test run."""
    # A whole run has collected the engines' own tests, which import what takes seconds to import.
    make = make_here if "chatterbox" in sys.modules else make_elsewhere
    return make_once(f"tiny-{engine}", lambda folder: make(engine, folder))


def tiny_checkpoint_with_mean_flow(engine: str) -> Path:
    """The folder of an engine's tiny checkpoint with a mean flow beside its files, made once for the whole test run."""

    def make(folder: Path) -> None:
        folder.mkdir()
        for file in tiny_checkpoint(engine).iterdir():
            os.link(file, folder / file.name)
        run_script("make_mean_flow", engine, folder)

    return make_once(f"tiny-{engine}-meanflow", make)


def make_here(engine: str, folder: Path) -> None:
    """Write a tiny checkpoint in this process, whose random numbers stay as they were."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch

        from scripts.support.make_checkpoint import write_checkpoint

        with torch.random.fork_rng(devices=[]):
            write_checkpoint(engine, folder, tiny=True)


def make_elsewhere(engine: str, folder: Path, *options: str) -> None:
    """Write a tiny checkpoint in a separate process, so that this one does not import torch."""
    run_script("make_checkpoint", engine, folder, "--tiny", *options)


def run_script(script: str, engine: str, folder: Path, *options: str) -> None:
    """Run one of the scripts that write checkpoints."""
    done = subprocess.run(
        [sys.executable, "-m", f"scripts.support.{script}", engine, str(folder), *options],
        cwd=ROOT,
        env=environment() | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
