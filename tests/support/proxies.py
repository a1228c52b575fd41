"""nginx and HAProxy in front of a server, with the configurations in `deploy/`."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from balancer.host.processes import await_ready, free_port, running
from scripts.hosts.proxy import SHIPPED_SERVER
from tests.support.harness import ROOT, TIMEOUT

_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin"

_NGINX = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {deployed}
}}
"""


@contextmanager
def start_nginx(folder: Path, *servers: str) -> Iterator[str]:
    """Run nginx in front of the servers at these URLs, in `folder`; gives its own URL."""
    port = free_port()
    deployed = _deployed("nginx.conf", servers).replace("listen 8080", f"listen 127.0.0.1:{port}")
    configuration = folder / "nginx.conf"
    configuration.write_text(_NGINX.format(folder=folder, deployed=deployed))
    command: list[str | Path] = [program("nginx"), "-p", folder, "-e", folder / "nginx.log", "-c", configuration]
    with _proxy(command, port, folder / "nginx.out") as url:
        yield url


@contextmanager
def start_haproxy(folder: Path, *servers: str, agent_port: int = 5001) -> Iterator[str]:
    """Run HAProxy in front of the servers at these URLs, in `folder`; gives its own URL. Its state is at `/stats`."""
    port = free_port()
    configuration = folder / "haproxy.cfg"
    deployed = _deployed("haproxy.cfg", servers).replace("agent-port 5001", f"agent-port {agent_port}")
    own = f"bind 127.0.0.1:{port}\n    stats enable\n    stats uri /stats"
    configuration.write_text(deployed.replace("bind :8080", own))
    with _proxy([program("haproxy"), "-db", "-f", configuration], port, folder / "haproxy.out") as url:
        yield url


def _deployed(name: str, servers: Sequence[str]) -> str:
    """The configuration, in which the line of its only server is repeated for each of these."""
    text = (ROOT / "deploy" / name).read_text().replace(SHIPPED_SERVER, "server host1 127.0.0.1:5000")
    lines = []
    for line in text.splitlines():
        listed = (
            [line]
            if "127.0.0.1:5000" not in line
            else [
                line.replace("127.0.0.1:5000", urlsplit(server).netloc).replace("host1", f"host{number}")
                for number, server in enumerate(servers, 1)
            ]
        )
        lines += listed
    return "\n".join(lines) + "\n"


def program(name: str) -> str:
    """The path of an installed program."""
    path = shutil.which(name) or shutil.which(name, path=_SYSTEM_PATH)
    assert path is not None, f"{name} is not installed"
    return path


@contextmanager
def _proxy(command: list[str | Path], port: int, log: Path) -> Iterator[str]:
    def listens() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    with running(command, log=log) as process:
        await_ready(process, listens, timeout=TIMEOUT, poll_interval=0.01)
        yield f"http://127.0.0.1:{port}"
