from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.real_worker import Worker, start_worker, worker_options


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A folder for sockets, at a path that is short enough for them."""
    with tempfile.TemporaryDirectory(prefix="chorus-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """A worker that is ready, for tests that leave it as it was."""
    with tempfile.TemporaryDirectory(prefix="chorus-") as folder, start_worker(worker_options(Path(folder))) as worker:
        worker.await_ready()
        yield worker
