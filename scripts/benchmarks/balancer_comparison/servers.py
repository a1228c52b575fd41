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
_SYSTEM_PATH = ("/usr/local/sbin", "/usr/sbin")
"""HAProxy is installed there, and not every PATH contains these folders."""
_MAX_CONNECTIONS = 1000

# The setup of a careful operator. No health checks: they would only take time. All failed requests are retried on
# another worker, which is safe because of the seed. /health answers that HAProxy listens, without asking a worker.
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


class Balancer(StrEnum):
    """The program that distributes the utterances."""

    CHORUS = "chorus"
    HAPROXY = "haproxy"


@dataclass(frozen=True)
class BalancerPair:
    """Both balancers, running in front of the same workers."""

    chorus: Server
    haproxy: Server

    def url(self, balancer: Balancer) -> str:
        """The URL of a balancer."""
        return {Balancer.CHORUS: self.chorus, Balancer.HAPROXY: self.haproxy}[balancer].url

    def process(self, balancer: Balancer) -> psutil.Process:
        """The process of a balancer, without its workers. Raises ServerError if it has ended."""
        if balancer is Balancer.HAPROXY:
            return _single(self.haproxy, self.haproxy.processes())
        return _single(self.chorus, self.chorus.processes_of("balancer"))

    def workers(self) -> list[psutil.Process]:
        """The running worker processes behind both."""
        return self.chorus.processes_of("worker")


def _single(server: Server, processes: list[psutil.Process]) -> psutil.Process:
    if len(processes) != 1:
        raise server.failure("it ended under load")
    return processes[0]


def find_haproxy(program: str) -> str:
    """The absolute path of the program. Raises ServerError with the command that installs it."""
    path = shutil.which(program) or shutil.which(program, path=":".join(_SYSTEM_PATH))
    if path is None:
        raise ServerError(
            f"{program} is not installed: on Debian and Ubuntu `apt-get install -y --no-install-recommends haproxy` "
            "installs HAProxy; --haproxy names a program elsewhere"
        )
    # Absolute: HAProxy is started in another working directory.
    return str(Path(path).absolute())


@contextmanager
def start_balancers(
    haproxy: str, *, workers: int, settings: Mapping[str, object], folder: Path
) -> Iterator[BalancerPair]:
    """Run Chorus, with these settings and workers of one thread, and HAProxy until the end of the block.

    Raises ServerError.
    """
    run_dir = folder / "run"
    with (
        start_chorus(Balancer.CHORUS, engine=ENGINE, workers=workers, folder=folder, settings=settings) as chorus,
        _start_haproxy(haproxy, [run_dir / f"worker-{index}.sock" for index in range(workers)], folder) as proxy,
    ):
        yield BalancerPair(chorus, proxy)


@contextmanager
def _start_haproxy(program: str, sockets: list[Path], folder: Path) -> Iterator[Server]:
    port = free_port()
    configuration = folder / "haproxy.cfg"
    configuration.write_text(configure(port, sockets), encoding="utf-8")
    command = [program, "-db", "-f", str(configuration)]
    log = folder / "haproxy.log"
    with running_server(Balancer.HAPROXY, command, clean_environment(), log, port, lambda report: True) as server:
        yield server


def configure(port: int, sockets: list[Path]) -> str:
    """HAProxy's configuration: least connections, one utterance per worker at a time, all others in its queue."""
    servers = [f"    server worker-{index} unix@{path} maxconn 1" for index, path in enumerate(sockets)]
    return _CONFIGURATION.format(connections=_MAX_CONNECTIONS, port=port, servers="\n".join(servers))
