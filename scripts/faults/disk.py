"""A small disk for the run directory, which can be filled without harm to anything else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE = "4m"


@contextmanager
def small_disk(folder: Path) -> Iterator[str | None]:
    """Create `folder` and mount a tmpfs of SIZE on it until the end of the block.

    Gives None, or the reason why nothing is mounted.
    """
    folder.mkdir(mode=0o700)
    if os.geteuid() != 0:
        yield "only root can mount a disk for the run directory"
        return
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "chorus-chaos", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        yield f"no disk can be mounted for the run directory: {mounted.stderr.strip()}"
        return
    try:
        yield None
    finally:
        # Lazily: a process that is about to end may have a file open there.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
