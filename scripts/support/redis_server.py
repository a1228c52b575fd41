"""A Redis server on a free port of the loopback address, for one run of a command or of a test."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from balancer.host.processes import await_ready, free_port, running

START_SECONDS = 30.0
COMMAND_SECONDS = 30.0


class RedisServer:
    """Runs `redis-server` in `folder`, where its log lies, and the data of a `durable` one.

    A durable one can be started again with its data after a stop or a kill; any other keeps nothing on disk.
    """

    def __init__(self, folder: Path, *, durable: bool = False, **options: object) -> None:
        """`options` are lines of its configuration, such as `replicaof`."""
        self.port = free_port()
        self._folder = folder
        self._options: dict[str, object] = {"port": self.port, "bind": "127.0.0.1", "dir": folder, "save": ""}
        if durable:
            # `everysec` may lose what it has acknowledged in the last two seconds, if it is killed while the disk is
            # busy.
            self._options |= {"appendonly": "yes", "appendfsync": "always"}
        self._options |= {name.replace("_", "-"): value for name, value in options.items()}
        self._running = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address, as Chorus's setting has it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it; it answers when this returns."""
        arguments = [text for name, value in self._options.items() for text in (f"--{name}", *str(value).split())]
        self._process = self._running.enter_context(
            running(["redis-server", *arguments], log=self._folder / "redis.log")
        )
        await_ready(self._process, lambda: self.ask("PING").startswith(b"+PONG"), timeout=START_SECONDS)

    def stop(self) -> None:
        """End it with SIGTERM, as its operator does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with SIGKILL, if it runs."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop it with SIGSTOP: it keeps its connections and answers nothing."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen one go on."""
        self._send(signal.SIGCONT)

    def empty(self) -> None:
        """Delete all data. Raises RuntimeError if it refuses to."""
        if (answer := self.ask("FLUSHALL")) != b"+OK\r\n":
            raise RuntimeError(f"Redis answered FLUSHALL with {answer!r}")

    def ask(self, command: str) -> bytes:
        """The beginning of the answer to a command; empty if the server does not listen."""
        return ask(self.port, command)

    def _send(self, signum: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(signum)

    def _end(self, signum: signal.Signals) -> None:
        if self._process is not None:
            self.thaw()
            self._send(signum)
            self._process.wait()
            self._process = None
        self._running.close()


@contextmanager
def start_redis(folder: Path, *, durable: bool = False) -> Iterator[RedisServer]:
    """Run a server in `folder` until the end of the block, which kills it."""
    server = RedisServer(folder, durable=durable)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def ask(port: int, command: str, password: str = "") -> bytes:
    """The beginning of the answer of a Redis or a Sentinel to a command; empty if it does not listen."""
    with socket.socket() as client:
        client.settimeout(COMMAND_SECONDS)
        if client.connect_ex(("127.0.0.1", port)) != 0:
            return b""
        if password:
            client.sendall(f'AUTH "{password}"\r\n'.encode())
            client.recv(100)
        client.sendall(f"{command}\r\n".encode())
        return client.recv(10_000)
