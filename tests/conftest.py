from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.tiny_models import TinyCheckpoint, tiny_checkpoints

# How long an example takes says more of the machine's other work than of the code.
settings.register_profile("chorus", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("chorus")


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell that starts the tests in the background has them ignore Ctrl-C, and what they start along with them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A folder for sockets, at a path that is short enough for them."""
    with tempfile.TemporaryDirectory(prefix="chorus-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def tiny_checkpoint() -> Iterator[TinyCheckpoint]:
    """The folder of an engine's tiny checkpoint, `tiny_checkpoint("turbo")`, made when it is first asked for."""
    with tiny_checkpoints() as tiny:
        yield tiny
