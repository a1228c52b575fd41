"""The answer to HAProxy's agent check, of a real balancer with a stub worker."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx

from balancer.host.processes import free_port
from tests.support.harness import TIMEOUT, serve_stub, wait_until


def ask(port: int) -> str:
    """What HAProxy reads; empty while nothing listens."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as client:
            return client.makefile().read()
    except ConnectionRefusedError:
        return ""


def control(run_dir: Path, path: str) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(run_dir / "control.sock"))) as client:
        client.post(f"http://control{path}").raise_for_status()


def test_the_weight_of_an_idle_host_and_of_one_that_drains() -> None:
    port = free_port()
    with serve_stub(agent_port=port) as server:
        wait_until(lambda: ask(port) == "ready 100%\n")
        control(server.log.parent, "/drain")
        wait_until(lambda: ask(port) == "drain\n")
        control(server.log.parent, "/resume")
        wait_until(lambda: ask(port) == "ready 100%\n")
