from __future__ import annotations

from pathlib import Path

import pytest

from balancer.launch import plan, preflight
from tests.support.launch import ICE_LAKE
from worker.checkpoints.catalogue import CHECKPOINTS


@pytest.fixture
def folder(run_dir: Path) -> Path:
    """A folder for run directories; it is empty."""
    return run_dir


@pytest.fixture
def ice_lake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the tests run on, it counts as one with VNNI and without BF16; turbo's libraries are installed."""
    monkeypatch.setattr(preflight, "detect_processor", lambda: ICE_LAKE)
    monkeypatch.setattr(plan, "detect_processor", lambda: ICE_LAKE)
    monkeypatch.setattr(preflight, "missing_extra", lambda _: None)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where turbo's weights would lie in the hub's cache, which is empty; its libraries are installed."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(preflight, "missing_extra", lambda _: None)
    return tmp_path / "models--ResembleAI--chatterbox-turbo" / "snapshots" / CHECKPOINTS["turbo"].revision
