"""A Redis whose replica takes its place: a primary, a replica and a Sentinel, with what they persist in a folder."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

from balancer.host.processes import await_ready, free_port, running

START_SECONDS = 30.0
NAME = "chorus"


class Sentinels:
    """Three running processes."""

    def __init__(self, folder: Path, running_here: ExitStack, password: str = "") -> None:
        """`password` is what the Sentinel requires; the Redis servers require none."""
        self._primary_port, self._replica_port, self._port = free_port(), free_port(), free_port()
        self._password = password
        own = f"port {self._port}\nbind 127.0.0.1\ndir {folder}\n"
        if password:
            own += f'requirepass "{password}"\n'
        watched = f"sentinel monitor {NAME} 127.0.0.1 {self._primary_port} 1\n"
        times = f"sentinel down-after-milliseconds {NAME} 500\nsentinel failover-timeout {NAME} 2000\n"
        (folder / "sentinel.conf").write_text(own + watched + times)
        self._primary = _start(running_here, folder, self._primary_port)
        await_ready(self._primary, lambda: b"PONG" in ask(self._primary_port, "PING"), timeout=START_SECONDS)
        follows = ("--replicaof", "127.0.0.1", str(self._primary_port), "--repl-diskless-sync-delay", "0")
        replica = _start(running_here, folder, self._replica_port, *follows)
        await_ready(
            replica, lambda: b"state=online" in ask(self._primary_port, "INFO replication"), timeout=START_SECONDS
        )
        command = ["redis-server", str(folder / "sentinel.conf"), "--sentinel"]
        sentinel = running_here.enter_context(running(command, log=folder / "sentinel.log"))
        await_ready(sentinel, lambda: b"slaves=1" in ask(self._port, "INFO sentinel", password), timeout=START_SECONDS)

    @property
    def url(self) -> str:
        """As Chorus's setting has it."""
        login = f"?sentinel_password={quote(self._password, safe='')}" if self._password else ""
        return f"redis+sentinel://127.0.0.1:{self._port}/{NAME}/0{login}"

    def kill_primary(self) -> None:
        """Kill the primary, whose place the replica takes within a few seconds."""
        self._primary.send_signal(signal.SIGKILL)

    @property
    def failed_over(self) -> bool:
        """Whether the replica has become the primary."""
        return b"role:master" in ask(self._replica_port, "INFO replication")


@contextmanager
def start_sentinels(folder: Path, password: str = "") -> Iterator[Sentinels]:
    """Run them until the end of the block. The replica follows and the Sentinel knows it when the block begins."""
    with ExitStack() as running_here:
        yield Sentinels(folder, running_here, password)


def ask(port: int, command: str, password: str = "") -> bytes:
    """The beginning of a Redis's answer to a command; empty if it does not listen."""
    with socket.socket() as client:
        if client.connect_ex(("127.0.0.1", port)) != 0:
            return b""
        if password:
            client.sendall(f'AUTH "{password}"\r\n'.encode())
            client.recv(100)
        client.sendall(f"{command}\r\n".encode())
        return client.recv(10_000)


def _start(running_here: ExitStack, folder: Path, port: int, *options: str) -> subprocess.Popen[bytes]:
    own = folder / str(port)
    own.mkdir()
    persistent = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(own), *persistent, *options]
    return running_here.enter_context(running(command, log=own / "redis.log"))
