from __future__ import annotations

import contextlib
import functools
import gc
import importlib.util
import os
import signal
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import httpx._config
import httpx._transports.default
import pytest
from hypothesis import HealthCheck, settings

from scripts.support.redis_server import RedisServer
from tests.support import shared_folder, tiny_models
from tests.support.harness import TIMEOUT
from tests.support.redis_server import start_redis
from tests.support.tiny_models import TinyCheckpoint
from worker.engines.chatterbox.kernels import disk_cache

TESTS = Path(__file__).parent
LONGEST = (TESTS / "end_to_end", TESTS / "scripts", TESTS / "worker" / "engines", TESTS / "balancer" / "cli")
"""Folders of tests that take minutes."""

# How long an example takes says more of the machine's other work than of the code.
settings.register_profile("chorus", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("chorus")


def pytest_configure(config: pytest.Config) -> None:
    # Until all tests are collected: libraries and tests are millions of objects, none of them garbage.
    gc.disable()
    if not hasattr(config, "workerinput"):
        shared_folder.create()
    # Each client of httpx reads the certificates of all authorities, for 30 ms of CPU time, and tests make thousands.
    vars(httpx._transports.default)["create_ssl_context"] = functools.cache(httpx.create_ssl_context)
    # A client's time limit bounds how long a test may hang. On a busy machine, an answer may take more than the five
    # seconds of httpx.
    vars(httpx._config.DEFAULT_TIMEOUT_CONFIG).update(dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT))
    # Before any kernel is imported: those that a test compiles are there for all others.
    disk_cache.enable(shared_folder.kernels_folder())


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    # All processes of a run import the same modules in the same order. In a fresh environment each would compile them.
    alone = hasattr(session.config, "workerinput") and not _bytecode_exists()
    with shared_folder.first_alone("imports") if alone else contextlib.nullcontext():
        return (yield)


def _bytecode_exists() -> bool:
    """Whether the packages of the engines were imported before, or never leave bytecode."""
    spec = importlib.util.find_spec("transformers")
    return sys.dont_write_bytecode or spec is None or spec.cached is None or Path(spec.cached).exists()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Whole files go to the processes of a run in this order: the longest ones first, so that all end together.
    longest = {path: any(map(path.is_relative_to, LONGEST)) for path in {item.path for item in items}}
    items.sort(key=lambda item: not longest[item.path])


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shared_folder.remove()


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell that starts the tests in the background has them ignore Ctrl-C, and what they start along with them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A folder for sockets, at a path that is short enough for them."""
    with tempfile.TemporaryDirectory(prefix="chorus-") as folder:
        yield Path(folder)


@pytest.fixture
def one_core() -> Iterator[None]:
    """All that is started has one core, however many there are: so the test takes as long everywhere,
    and no idle thread of a program waits awake."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(scope="session")
def tiny_checkpoint() -> TinyCheckpoint:
    """The folder of an engine's tiny checkpoint, `tiny_checkpoint("turbo")`, made when it is first asked for."""
    return tiny_models.tiny_checkpoint


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """A Redis server, shared by the module's tests."""
    # It is never started again, and a busy disk does not hold its answers up.
    with start_redis(durable=False) as server:
        yield server
