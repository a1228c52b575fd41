"""A real Redis server of the test's own, on a free port, with its data in a temporary folder."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from balancer.host.processes import await_ready, free_port, running
from scripts.support.sentinels import ask
from tests.support.harness import TIMEOUT


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
def start_redis(**options: object) -> Iterator[RedisServer]:
    """Run a server with these options, which the end of the block kills."""
    with tempfile.TemporaryDirectory(prefix="chorus-redis-") as folder:
        server = RedisServer(Path(folder), **options)
        server.start()
        try:
            yield server
        finally:
            server.kill()
