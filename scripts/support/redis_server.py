"""A Redis server for one run of a command, without persistence."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from balancer.host.processes import await_ready, free_port, running

START_SECONDS = 20.0
STOP_SECONDS = 10.0
COMMAND_SECONDS = 5.0


@dataclass(frozen=True)
class RedisServer:
    """A running Redis server."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """Its address, as Chorus's setting has it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self, line: str) -> str:
        """The first line of the answer to a command; empty if the server does not listen."""
        with socket.socket() as client:
            client.settimeout(COMMAND_SECONDS)
            if client.connect_ex(("127.0.0.1", self.port)) != 0:
                return ""
            client.sendall(f"{line}\r\n".encode())
            return client.recv(1000).decode(errors="replace").partition("\r\n")[0]


@contextmanager
def start_redis(folder: Path) -> Iterator[RedisServer]:
    """Run a Redis server on a free port, with its log in `folder`; it answers when the block begins."""
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--loglevel", "warning"]
    with running(["redis-server", *options], log=folder / "redis.log", grace_seconds=STOP_SECONDS) as process:
        server = RedisServer(port, process)
        await_ready(process, lambda: server.command("PING") == "+PONG", timeout=START_SECONDS)
        yield server
