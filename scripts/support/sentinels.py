"""A Redis whose replica takes its place: a primary, a replica and a Sentinel, with what they persist in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

from balancer.host.processes import await_ready, free_port, running, wait_until
from scripts.support.redis_server import RedisServer, ask

START_SECONDS = 30.0
NAME = "chorus"


class Sentinels:
    """Three running processes."""

    def __init__(self, folder: Path, running_here: ExitStack, password: str = "") -> None:
        """`password` is what the Sentinel requires; the Redis servers require none."""
        self._primary = _start(running_here, folder / "primary")
        # Without a delay the replica is there at once.
        follows = {"replicaof": f"127.0.0.1 {self._primary.port}", "repl_diskless_sync_delay": 0}
        self._replica = _start(running_here, folder / "replica", **follows)
        wait_until(lambda: b"state=online" in self._primary.ask("INFO replication"), timeout=START_SECONDS)
        self._port = free_port()
        self._password = password
        own = f"port {self._port}\nbind 127.0.0.1\ndir {folder}\n"
        if password:
            own += f'requirepass "{password}"\n'
        watched = f"sentinel monitor {NAME} 127.0.0.1 {self._primary.port} 1\n"
        times = f"sentinel down-after-milliseconds {NAME} 500\nsentinel failover-timeout {NAME} 2000\n"
        (folder / "sentinel.conf").write_text(own + watched + times)
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
        self._primary.kill()

    @property
    def failed_over(self) -> bool:
        """Whether the replica has become the primary."""
        return b"role:master" in self._replica.ask("INFO replication")


@contextmanager
def start_sentinels(folder: Path, password: str = "") -> Iterator[Sentinels]:
    """Run them until the end of the block. The replica follows and the Sentinel knows it when the block begins."""
    with ExitStack() as running_here:
        yield Sentinels(folder, running_here, password)


def _start(running_here: ExitStack, folder: Path, **options: object) -> RedisServer:
    folder.mkdir()
    server = RedisServer(folder, durable=True, **options)
    running_here.callback(server.kill)
    server.start()
    return server
