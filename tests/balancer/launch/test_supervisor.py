"""The environment that `chorus serve` gives supervisord, and the commands that supervisord makes of it."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from supervisor.options import ServerOptions

from balancer.cpu_lists import parse_cores
from balancer.host.calibration_run import calibration_options
from balancer.host.layout import Layout
from balancer.host.worker_options import worker_options
from balancer.launch.preflight import check
from balancer.launch.supervisor import SUPERVISOR_CONFIG
from balancer.settings.settings import Settings
from tests.support.launch import TWO_WORKERS, executed, settings_in
from worker.options import WorkerOptions

KEY = "0123456789abcdef"

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
        flow_steps=1,
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
    monkeypatch.setattr(os, "environ", executed(settings, LAYOUT, {"HOME": "/root"}, monkeypatch).environ)
    options = ServerOptions()
    options.realize(["-c", str(SUPERVISOR_CONFIG)])
    (group,) = (group for group in options.process_group_configs if group.name == "worker")
    return [shlex.split(process.command) for process in group.process_configs]


def test_each_worker_has_the_command_that_its_options_write(settings: Settings, commands: list[list[str]]) -> None:
    unset = shlex.split(os.environ["CHORUS_WORKER_UNSET"])
    prefix = ["setpriv", "--pdeathsig", "TERM", "--", "env", *unset, "nice", "-n", "5"]
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


# The environment of supervisord


def test_the_place_of_the_weights_is_exported(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_in(folder, engine="turbo", model_dir=cache, cache_dir=folder / "computed")
    environ = executed(settings, TWO_WORKERS, {"CHORUS_MODEL_DIR": "elsewhere"}, monkeypatch).environ
    assert environ["CHORUS_MODEL_DIR"] == str(cache)
    assert environ["CHORUS_CACHE_DIR"] == str(folder / "computed")
    assert Settings.load(environ).engine.model_dir == cache


def test_an_engine_without_weights_gets_no_folder_of_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = executed(settings_in(folder), TWO_WORKERS, {}, monkeypatch).environ
    assert "CHORUS_MODEL_DIR" not in environ
    assert "--model-dir" not in shlex.split(environ["CHORUS_WORKER_ARGV"])
    assert Path(environ["CHORUS_CACHE_DIR"]).is_absolute()
    assert Settings.load(environ).engine.model_dir is None


@pytest.mark.parametrize(
    ("layout", "cores"),
    [
        (TWO_WORKERS, "0;1"),
        (Layout(((0, 1, 4),), 2, 1, ()), "0-1,4"),
        (Layout(((0, 1), (2, 3)), 2, 8, ()), "0-1;2-3"),
    ],
)
def test_the_layout_is_exported(folder: Path, layout: Layout, cores: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = executed(settings_in(folder), layout, {}, monkeypatch).environ
    options = WorkerOptions.from_argv(["--index", "0", *shlex.split(environ["CHORUS_WORKER_ARGV"])])
    assert (options.layout, options.engine.threads, options.engine.slots) == (
        layout.workers,
        layout.threads,
        layout.slots,
    )
    assert environ["CHORUS_CORES"] == cores
    assert environ["CHORUS_WORKERS"] == str(len(layout.workers))
    assert environ["CHORUS_SLOTS"] == str(layout.slots)
    assert parse_cores(environ["CHORUS_CORES"]) == layout.workers


def test_the_balancer_reads_the_same_settings_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_in(folder, api_keys=f"{KEY},{KEY}2", queue_limit=7, log_level="debug", host="::1")
    environ = executed(settings, TWO_WORKERS, {"PATH": "/bin", "CHORUS_URL": "http://x"}, monkeypatch).environ
    assert environ["PATH"] == "/bin"
    assert Path(environ["CHORUS_PYTHON"]).is_file()
    expected = settings.updated(workers=2, cores="0;1", slots=1)
    assert Settings.load(environ) == expected


def test_the_command_line_goes_before_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_in(folder, port=6001)
    assert executed(settings, TWO_WORKERS, {"CHORUS_PORT": "6002"}, monkeypatch).environ["CHORUS_PORT"] == "6001"


def test_every_variable_that_supervisord_needs_is_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call = executed(settings_in(folder), TWO_WORKERS, {}, monkeypatch)
    config = Path(call.arguments[call.arguments.index("-c") + 1])
    needed = {part.partition(")")[0] for part in config.read_text().split("%(ENV_")[1:]}
    assert needed
    assert needed <= call.environ.keys()


def test_folders_are_exported_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    settings = Settings.load({"CHORUS_RUN_DIR": "run", "CHORUS_VOICES_DIR": "voices"})
    environ = executed(settings, TWO_WORKERS, {}, monkeypatch).environ
    assert environ["CHORUS_RUN_DIR"] == str(folder / "run")
    assert environ["CHORUS_VOICES_DIR"] == str(folder / "voices")


def test_sockets_of_an_earlier_layout_are_cleared_away(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_in(folder)
    check(settings)
    for name in ("worker-0.sock", "worker-9.sock", "other.sock"):
        (settings.server.socket_dir / name).touch()
    executed(settings, TWO_WORKERS, {}, monkeypatch)
    assert [path.name for path in settings.server.socket_dir.iterdir()] == ["other.sock"]
