"""The command line of a worker, as supervisord makes it of supervisord.conf and what `chorus serve` exports."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from supervisor.options import ServerOptions

from balancer.host.calibration_run import calibration_options
from balancer.host.layout import Layout
from balancer.host.worker_options import worker_options
from balancer.launch import supervisor
from balancer.launch.supervisor import SUPERVISOR_CONFIG, become_supervisor
from balancer.settings import Settings
from worker.options import WorkerOptions

LAYOUT = Layout(((0, 8), (1, 9), (2, 10)), 2, 8, ())


@pytest.fixture
def settings(run_dir: Path) -> Settings:
    """Settings of which none has its default, with paths that a shell, supervisord or a parser could take apart."""
    return Settings.load(
        {},
        run_dir=run_dir,
        engine="turbo",
        precision="int8",
        prompt_seconds=4,
        model_dir='/models/it\'s "here"; 100% %(ENV_HOME)s $HOME #1',
        cache_dir="/var/cache/two  blanks",
        voices_dir="/voices/größer",
        watchdog_seconds=12.5,
        log_level="debug",
        log_format="json",
        log_text=True,
    )


@pytest.fixture
def commands(settings: Settings, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The words of the command of each worker."""

    def execve(program: str, arguments: list[str], environ: dict[str, str]) -> NoReturn:
        raise InterruptedError(arguments, environ)

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(supervisor, "_pipe_output", lambda: None)
    with pytest.raises(InterruptedError) as caught:
        become_supervisor(settings, LAYOUT, {"HOME": "/root"})
    _, environ = caught.value.args
    monkeypatch.setattr(os, "environ", environ)
    options = ServerOptions()
    options.realize(["-c", str(SUPERVISOR_CONFIG)])
    (group,) = (group for group in options.process_group_configs if group.name == "worker")
    return [shlex.split(process.command) for process in group.process_configs]


def test_each_worker_has_the_command_that_its_options_write(settings: Settings, commands: list[list[str]]) -> None:
    prefix = ["setpriv", "--pdeathsig", "TERM", "--", "nice", "-n", "5"]
    options = [worker_options(settings, LAYOUT, index=index) for index in range(3)]
    assert commands == [[*prefix, *one.command()] for one in options]


def test_each_worker_reads_the_settings_and_the_layout_from_it(settings: Settings, commands: list[list[str]]) -> None:
    for index, command in enumerate(commands):
        options = WorkerOptions.from_argv(command[command.index("worker") + 1 :])
        assert options == worker_options(settings, LAYOUT, index=index)
        assert options.engine == settings.engine_options(slots=8, threads=2)
        assert options.engine.model_dir == settings.engine.model_dir
        assert (options.index, options.cpus) == (index, LAYOUT.workers[index])


def test_the_command_shows_the_engine_to_whoever_lists_processes(commands: list[list[str]]) -> None:
    shown = " ".join(commands[0])
    assert f"{sys.executable} -m worker --index 0 --engine turbo " in shown
    assert " --runtime batched --precision int8 " in shown


def test_a_calibration_runs_its_workers_with_the_same_options(settings: Settings, tmp_path: Path) -> None:
    served = worker_options(settings, LAYOUT, index=1)
    measured = calibration_options(settings, LAYOUT, 1, tmp_path)
    assert measured.engine == served.engine
    assert measured == replace(
        served, run_dir=tmp_path, watchdog_seconds=0.0, log_level="warning", log_format="text", log_text=False
    )
