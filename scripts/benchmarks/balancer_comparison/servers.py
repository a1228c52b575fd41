"""Starts Chorus, and HAProxy in front of the sockets of the same workers; ends both."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

from balancer.host.processes import free_port
from scripts.support.servers import Server, ServerError, clean_environment, running_server, start_chorus

ENGINE = "hibari"
HAPROXY = "haproxy"
_SYSTEM_PROGRAMS = ("/usr/local/sbin", "/usr/sbin")
"""Where HAProxy lies, and not in everybody's PATH."""
_CONNECTIONS = 1000

# As a careful operator would have it. Health checks are left out: they would only cost. Whatever can be tried again is,
# and elsewhere: a seed makes an utterance safe to repeat. /health tells that it listens, without asking a worker.
_CONFIGURATION = """\
global
    nbthread 1
    maxconn {connections}

defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout queue 1h
    timeout http-request 30s
    timeout http-keep-alive 1h
    retries 3
    option redispatch 1
    retry-on all-retryable-errors
    http-reuse always

frontend speech
    bind 127.0.0.1:{port}
    http-request return status 200 content-type application/json string "{{}}" if {{ path /health }}
    default_backend workers

backend workers
    balance leastconn
{servers}
"""


class Side(StrEnum):
    """Who hands out the utterances."""

    CHORUS = "chorus"
    HAPROXY = "haproxy"


@dataclass(frozen=True)
class Fronts:
    """Both fronts, running before the same workers."""

    chorus: Server
    haproxy: Server

    def url(self, side: Side) -> str:
        """Where a front listens."""
        return {Side.CHORUS: self.chorus, Side.HAPROXY: self.haproxy}[side].url

    def process(self, side: Side) -> psutil.Process:
        """The process that is the front itself. Raises ServerError."""
        if side is Side.HAPROXY:
            return _only(self.haproxy, self.haproxy.processes())
        return _only(self.chorus, self.chorus.processes_of("balancer"))

    def workers(self) -> list[psutil.Process]:
        """The processes behind both fronts, those that are there."""
        return self.chorus.processes_of("worker")


def _only(server: Server, processes: list[psutil.Process]) -> psutil.Process:
    if len(processes) != 1:
        raise server.failure("it ended under the load")
    return processes[0]


def find_haproxy(program: str) -> str:
    """The path of the program. Raises ServerError, which says how to come by it."""
    path = shutil.which(program) or shutil.which(program, path=":".join(_SYSTEM_PROGRAMS))
    if path is None:
        raise ServerError(
            f"there is no {program} here: on Debian and Ubuntu `apt-get install -y --no-install-recommends haproxy` "
            "installs it; --haproxy names one that lies elsewhere"
        )
    return path


@contextmanager
def start_fronts(haproxy: str, *, workers: int, settings: Mapping[str, object], folder: Path) -> Iterator[Fronts]:
    """So many workers of one thread, ready, behind Chorus with these `settings` and HAProxy. Raises ServerError."""
    run_dir = folder / "run"
    with (
        start_chorus(Side.CHORUS, engine=ENGINE, workers=workers, folder=folder, settings=settings) as chorus,
        _start_haproxy(haproxy, [run_dir / f"worker-{index}.sock" for index in range(workers)], folder) as proxy,
    ):
        yield Fronts(chorus, proxy)


@contextmanager
def _start_haproxy(program: str, sockets: list[Path], folder: Path) -> Iterator[Server]:
    port = free_port()
    configuration = folder / "haproxy.cfg"
    configuration.write_text(configure(port, sockets), encoding="utf-8")
    command = [program, "-db", "-f", str(configuration)]
    log = folder / "haproxy.log"
    with running_server(Side.HAPROXY, command, clean_environment(), log, port, lambda report: True) as server:
        yield server


def configure(port: int, sockets: list[Path]) -> str:
    """HAProxy's configuration: least connections, one utterance a worker at a time, all others in its queue."""
    servers = [f"    server worker-{index} unix@{path} maxconn 1" for index, path in enumerate(sockets)]
    return _CONFIGURATION.format(connections=_CONNECTIONS, port=port, servers="\n".join(servers))
