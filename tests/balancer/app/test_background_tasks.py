"""Which background tasks a balancer has, and in which order they start and are stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from balancer.app.background_tasks import STOPPED_ON_HAND_OVER, create_background_tasks
from balancer.app.services import create_services
from balancer.metrics import Metrics
from balancer.runtime.background import BackgroundTask, OnFailure
from balancer.runtime.lifecycle import Lifecycle
from balancer.settings.settings import Settings


@pytest.fixture(autouse=True)
def _nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither systemd nor supervisord runs the tests' process."""
    for name in ("NOTIFY_SOCKET", "SUPERVISOR_SERVER_URL", "SUPERVISOR_PROCESS_NAME"):
        monkeypatch.delenv(name, raising=False)


def tasks_with(folder: Path, **fields: object) -> list[BackgroundTask]:
    settings = Settings.load({}, data_dir=folder / "data", cache_dir=folder / "cache", run_dir=folder / "run", **fields)
    return create_background_tasks(settings, create_services(settings, Metrics("hibari")), Lifecycle())


def test_tasks_that_nobody_asked_for_are_not_there(tmp_path: Path) -> None:
    names = [task.name for task in tasks_with(tmp_path)]
    assert names == [
        "fleet",
        "jobs",
        "ready banner",
        "degradation",
        "loop lag",
        "history",
        "recycling",
        "control socket",
    ]


def test_all_tasks_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    names = [task.name for task in tasks_with(tmp_path, agent_port=5999, webhook_secret="whsec_" + 40 * "A")]
    assert names == [
        "fleet",
        "jobs",
        "ready banner",
        "degradation",
        "systemd",
        "loop lag",
        "history",
        "recycling",
        "control socket",
        "webhooks",
        "agent check",
    ]
    assert STOPPED_ON_HAND_OVER == ("recycling", "webhooks", "agent check")


def test_only_the_view_of_the_workers_ends_the_process_when_it_fails(tmp_path: Path) -> None:
    ends = [task.name for task in tasks_with(tmp_path) if task.on_failure is OnFailure.END_PROCESS]
    assert ends == ["fleet"]
