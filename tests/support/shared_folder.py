"""A folder that all processes of one test run share: what is slow to make is made once, by whichever needs it first.

The process that was started makes the folder and removes it at the end; pytest-xdist's workers inherit its name.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.support import kernel_cache

VARIABLE = "TEST_RUN_FOLDER"


def create() -> None:
    """Make the folder of this run, and name it to the processes started from here on."""
    os.environ[VARIABLE] = tempfile.mkdtemp(prefix="chorus-test-run-")


def remove() -> None:
    """Remove the folder with all that lies in it."""
    shutil.rmtree(os.environ.pop(VARIABLE), ignore_errors=True)


def shared_folder() -> Path:
    """The folder of this run."""
    return Path(os.environ[VARIABLE])


def make_once(name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name` within the shared one, filled by `make` unless another process has filled it.

    A `make` that fails leaves nothing behind.
    """
    folder = shared_folder() / name
    with _lock(shared_folder() / f"{name}.lock"):
        if not folder.exists():
            unfinished = folder.with_name(f"{name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            make(unfinished)
            unfinished.rename(folder)
    return folder


@contextmanager
def first_alone(name: str) -> Iterator[None]:
    """A block that the first process of this run is alone in; the others enter it together, once that has left it."""
    done = shared_folder() / f"{name}.done"
    with (shared_folder() / f"{name}.lock").open("w") as held:
        if not done.exists():
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                fcntl.flock(held, fcntl.LOCK_SH)
                fcntl.flock(held, fcntl.LOCK_UN)
        yield
        done.touch()


def kernels_folder() -> Path:
    """Cache folder for compiled kernels: all engines of a run take them from there, in whatever process they are."""
    folder = shared_folder() / "kernel-cache"
    folder.mkdir(exist_ok=True)
    return folder


def with_kernels(cache: Path) -> Path:
    """Have engines whose cache folder is `cache` find the run's compiled kernels in it; returns `cache`."""
    return kernel_cache.with_kernels(cache, kernels_folder())


@contextmanager
def _lock(file: Path) -> Iterator[None]:
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
