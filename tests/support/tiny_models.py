"""Makes tiny checkpoints of random weights for the Chatterbox engines, each once, when a test first asks for it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.harness import ROOT, environment

TinyCheckpoint = Callable[[str], Path]
"""The folder of an engine's tiny checkpoint, made if it is not there yet. Tests leave it as it is."""


@contextmanager
def tiny_checkpoints() -> Iterator[TinyCheckpoint]:
    """A place for tiny checkpoints, of 0.5 to 0.8 GB each, that is gone when the block ends."""
    made: dict[str, Path] = {}

    with tempfile.TemporaryDirectory(prefix="chorus-tiny-") as home:

        def tiny(engine: str) -> Path:
            if engine not in made:
                make_elsewhere(engine, Path(home) / engine)
                made[engine] = Path(home) / engine
            return made[engine]

        yield tiny


def make_elsewhere(engine: str, folder: Path, *options: str) -> None:
    """Write a tiny checkpoint in a process of its own, so that this one stays without torch."""
    done = subprocess.run(
        [sys.executable, "scripts/support/make_checkpoint.py", engine, str(folder), "--tiny", *options],
        cwd=ROOT,
        env=environment() | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
