"""Becomes supervisord, with the layout and the settings in the environment that supervisord.conf reads.

supervisord and all that it starts have the listening sockets, which outlive every balancer, a raised limit of open
files, and a relay before standard output, which no reader of the log can hold up.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from math import ceil
from typing import NoReturn

from balancer.cpu_lists import format_cores
from balancer.host.layout import Layout
from balancer.host.worker_options import worker_options
from balancer.launch.preflight import TransientLaunchError
from balancer.launch.worker_environment import unset_arguments
from balancer.listening_sockets import VARIABLE, listen, pass_on, take_from_systemd
from balancer.runtime.descriptor_limit import raise_descriptor_limit
from balancer.runtime.repository import REPOSITORY
from balancer.settings.settings import Settings

SUPERVISOR_CONFIG = REPOSITORY / "supervisord.conf"

STOP_MARGIN_SECONDS = 5
"""Time for the last steps of a balancer once its grace period is over, before supervisord kills it."""


def become_supervisor(settings: Settings, layout: Layout, environ: Mapping[str, str]) -> NoReturn:
    """Replace this process by supervisord, which starts the balancer and the workers of `layout`.

    Raises LaunchError if the address cannot be listened on.
    """
    raise_descriptor_limit()
    environ = dict(environ)
    try:
        listeners = take_from_systemd(environ) or listen(settings.server.host, settings.server.port)
    except OSError as error:
        address = f"{settings.server.host}:{settings.server.port}"
        raise TransientLaunchError(
            f"cannot listen on {address}: {error.strerror}; choose another --port or --host"
        ) from error
    for leftover in settings.server.socket_dir.glob("worker-*.sock"):
        leftover.unlink()
    arguments = [sys.executable, "-m", "supervisor.supervisord", "--nodaemon", "-c", str(SUPERVISOR_CONFIG)]
    if os.getuid() == 0:
        arguments += ["--user", "0"]  # as it is; otherwise supervisord takes it for a critical slip
    sys.stdout.flush()
    _relay_output(settings)
    environ |= _environment(settings, layout, environ)
    environ["CHORUS_WORKER_UNSET"] = shlex.join(unset_arguments([*environ, VARIABLE, "CHORUS_WORKER_UNSET"]))
    pass_on(listeners, environ)
    os.execve(sys.executable, arguments, environ)


def _relay_output(settings: Settings) -> None:
    """Put a pipe and `balancer.launch.log_relay` before standard output and standard error.

    The relay has a session of its own, so that Ctrl-C does not end it first.
    """
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "balancer.launch.log_relay"]
    if settings.logging.log_format == "json":
        command.append("--json")
    subprocess.Popen(command, stdin=reading, start_new_session=True)
    os.close(reading)
    os.dup2(writing, sys.stdout.fileno())
    os.dup2(writing, sys.stderr.fileno())
    os.close(writing)


def _environment(settings: Settings, layout: Layout, environ: Mapping[str, str]) -> dict[str, str]:
    server = settings.server
    chosen = settings.updated(slots=layout.slots, workers=len(layout.workers), cores=format_cores(layout.workers))
    return {
        **chosen.environ(environ),
        "CHORUS_WORKER_ARGV": shlex.join(worker_options(chosen, layout).shared_argv()),
        # Another program may choose the interpreter at each start, such as deploy/python.
        "CHORUS_PYTHON": environ.get("CHORUS_PYTHON") or sys.executable,
        "CHORUS_BALANCER_STOP_WAIT": str(ceil(server.stop_seconds + server.stop_delay_seconds) + STOP_MARGIN_SECONDS),
    }
