"""Becomes supervisord, with the layout and the settings in the environment that supervisord.conf reads."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from typing import NoReturn

from balancer.cpu_lists import format_cores
from balancer.host.layout import Layout
from balancer.host.worker_options import worker_options
from balancer.settings import Settings
from balancer.settings_groups import REPOSITORY

SUPERVISOR_CONFIG = REPOSITORY / "supervisord.conf"


def become_supervisor(settings: Settings, layout: Layout, environ: Mapping[str, str]) -> NoReturn:
    """Replace this process by supervisord, which starts the balancer and the workers of `layout`."""
    for leftover in settings.server.socket_dir.glob("worker-*.sock"):
        leftover.unlink()
    arguments = [sys.executable, "-m", "supervisor.supervisord", "--nodaemon", "-c", str(SUPERVISOR_CONFIG)]
    sys.stdout.flush()
    _pipe_output()
    os.execve(sys.executable, arguments, {**environ, **_environment(settings, layout)})


def _pipe_output() -> None:
    """Put a pipe and `cat` before standard output.

    supervisord opens /dev/fd/1 anew for each program's output. A socket, such as systemd's journal, refuses that, and
    so does another user's terminal; in a file, the programs would overwrite each other's output. `cat` has a session of
    its own, so that Ctrl-C does not end it first.
    """
    reading, writing = os.pipe()
    subprocess.Popen(["cat"], stdin=reading, start_new_session=True)
    os.close(reading)
    os.dup2(writing, sys.stdout.fileno())
    os.close(writing)


def _environment(settings: Settings, layout: Layout) -> dict[str, str]:
    chosen = settings.updated(slots=layout.slots, workers=len(layout.workers), cores=format_cores(layout.workers))
    return {
        **chosen.environ(),
        "CHORUS_WORKER_ARGV": shlex.join(worker_options(chosen, layout).shared_argv()),
        "CHORUS_PYTHON": sys.executable,
        "CHORUS_UID": str(os.getuid()),
    }
