"""A real Redis server of the test's own, on a free port, with its data in a temporary folder."""

from __future__ import annotations

import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from balancer.host.processes import await_ready, free_port, running
from tests.support.harness import TIMEOUT, wait_until


class RedisServer:
    """Runs `redis-server` in `folder`; after a stop it can be started again with its data."""

    def __init__(self, folder: Path, **options: object) -> None:
        """`options` are lines of its configuration, such as `replicaof`."""
        self.port = free_port()
        self._options = {name.replace("_", "-"): value for name, value in options.items()}
        self._folder = folder
        self._running = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self._folder, "save": ""}
        # `everysec` may lose what it has acknowledged in the last two seconds, if it is killed while the disk is busy.
        options |= {"appendonly": "yes", "appendfsync": "always"}
        options |= self._options
        arguments = [text for name, value in options.items() for text in (f"--{name}", *str(value).split())]
        self._process = self._running.enter_context(
            running(["redis-server", *arguments], log=self._folder / "redis.log")
        )
        await_ready(self._process, lambda: self.ask("PING").startswith(b"+PONG"), timeout=TIMEOUT)

    def stop(self) -> None:
        """End it with SIGTERM, as its operator does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop it with SIGSTOP: it keeps its connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def empty(self) -> None:
        """Delete all data."""
        assert self.ask("FLUSHALL") == b"+OK\r\n"

    def _end(self, signum: int) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(signum)
            self._process.wait()
            self._process = None
        self._running.close()

    def ask(self, command: str) -> bytes:
        """The answer to a command; empty if the server does not listen."""
        return ask(self.port, command)


@contextmanager
def start_redis() -> Iterator[RedisServer]:
    """Run a server, which the end of the block kills."""
    with tempfile.TemporaryDirectory(prefix="chorus-redis-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.kill()


class Sentinels:
    """A primary with one replica, and a Sentinel that has the replica take its place."""

    def __init__(self, folder: Path) -> None:
        folders = [folder / name for name in ("primary", "replica", "sentinel")]
        for each in folders:
            each.mkdir()
        self.primary = RedisServer(folders[0])
        self.replica = RedisServer(folders[1], replicaof=f"127.0.0.1 {self.primary.port}", repl_diskless_sync_delay=0)
        self.port = free_port()
        self._folder = folders[2]

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.port}/chorus/0"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run all three; the replica follows and the Sentinel knows it when the block begins."""
        configuration = self._folder / "sentinel.conf"
        configuration.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self._folder}\n"
            f"sentinel monitor chorus 127.0.0.1 {self.primary.port} 1\n"
            "sentinel down-after-milliseconds chorus 500\nsentinel failover-timeout chorus 2000\n"
        )
        self.primary.start()
        try:
            self.replica.start()
            wait_until(lambda: b"state=online" in self.primary.ask("INFO replication"))
            command = ["redis-server", str(configuration), "--sentinel"]
            with running(command, log=self._folder / "sentinel.log") as process:
                await_ready(process, lambda: b"slaves=1" in ask(self.port, "INFO sentinel"), timeout=TIMEOUT)
                yield
        finally:
            self.replica.kill()
            self.primary.kill()


@contextmanager
def start_sentinels() -> Iterator[Sentinels]:
    """Run a primary, a replica and a Sentinel."""
    with tempfile.TemporaryDirectory(prefix="chorus-redis-") as folder:
        sentinels = Sentinels(Path(folder))
        with sentinels.running():
            yield sentinels


def ask(port: int, command: str) -> bytes:
    """The answer of a Redis to a command; empty if it does not listen."""
    with socket.socket() as client:
        if client.connect_ex(("127.0.0.1", port)) != 0:
            return b""
        client.sendall(f"{command}\r\n".encode())
        return client.recv(10_000)
