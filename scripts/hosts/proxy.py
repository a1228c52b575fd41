"""HAProxy with the shipped configuration, in front of several hosts."""

from __future__ import annotations

import csv
import io
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from balancer.host.processes import await_ready, free_port, running
from balancer.runtime.repository import REPOSITORY

START_SECONDS = 20.0
SHIPPED_SERVER = 'server host1 "${HOST1-127.0.0.1}:5000"'


@dataclass(frozen=True)
class Proxy:
    """A running HAProxy."""

    url: str

    def states(self) -> dict[str, str]:
        """The state of each host as HAProxy sees it, such as `UP`, `DOWN` or `DRAIN`."""
        table = httpx.get(f"{self.url}/stats;csv", trust_env=False).text.removeprefix("# ")
        rows = csv.DictReader(io.StringIO(table))
        return {row["svname"]: row["status"] for row in rows if row["svname"].startswith("host")}


@contextmanager
def start_proxy(folder: Path, urls: Sequence[str], agent_port: int) -> Iterator[Proxy]:
    """Run HAProxy in front of the servers at these URLs, named host1, host2 and so on."""
    port = free_port()
    text = (REPOSITORY / "deploy" / "haproxy.cfg").read_text(encoding="utf-8")
    servers = "\n    ".join(f"server host{number} {urlsplit(url).netloc}" for number, url in enumerate(urls, 1))
    for shipped, own in (
        (SHIPPED_SERVER, servers),
        ("bind :8080", f"bind 127.0.0.1:{port}\n    stats enable\n    stats uri /stats"),
        ("agent-port 5001", f"agent-port {agent_port}"),
    ):
        if shipped not in text:
            raise RuntimeError(f"deploy/haproxy.cfg has no line with {shipped!r}")
        text = text.replace(shipped, own)
    configuration = folder / "haproxy.cfg"
    configuration.write_text(text, encoding="utf-8")

    def listens() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    with running(["haproxy", "-db", "-f", str(configuration)], log=folder / "haproxy.log") as process:
        await_ready(process, listens, timeout=START_SECONDS)
        yield Proxy(f"http://127.0.0.1:{port}")
