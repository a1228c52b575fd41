"""`chorus drain`, `resume` and `restart`: what the operator asks of the server that runs on this host.

They speak to the control socket in the run directory: no key is needed, but the same user and settings as the server.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import httpx
import typer

from balancer.cli.console import EXIT_REFUSED, EXIT_UNREACHABLE, fail, tell
from balancer.settings import Settings, SettingsError

LOOK_SECONDS = 0.1

Port = Annotated[int | None, typer.Option(help="Port of the server; its run directory is named after it.")]
RunDir = Annotated[Path | None, typer.Option(help="The server's run directory, where it was given one.")]


def drain(
    wait: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to wait until nothing is in flight; 0: not.")
    ] = 300.0,
    port: Port = None,
    run_dir: RunDir = None,
) -> None:
    """Take this host out of service: `/ready` answers 503, while what comes is still served.

    Ends when nothing is in flight, with exit code 1 where that takes too long. `chorus resume` takes it back.
    """
    server = _Control(port, run_dir)
    idle = server.ask("POST", "/drain")["idle"]
    tell("draining: /ready answers 503 now")
    deadline = time.monotonic() + wait
    while wait and not idle:
        if time.monotonic() > deadline:
            fail(f"still busy after {wait:g} s; it goes on draining")
        time.sleep(LOOK_SECONDS)
        idle = server.ask("GET", "/state")["idle"]
    if idle:
        tell("nothing is in flight")


def resume(port: Port = None, run_dir: RunDir = None) -> None:
    """Put a drained host back into service."""
    _Control(port, run_dir).ask("POST", "/resume")
    tell("in service again")


def restart(
    rolling: Annotated[bool, typer.Option("--rolling", help="One process at a time; no request fails.")] = False,
    workers_only: Annotated[bool, typer.Option("--workers-only", help="Leave the balancer as it is.")] = False,
    port: Port = None,
    run_dir: RunDir = None,
) -> None:
    """Start every process afresh, with new code or libraries, while the server goes on serving.

    Each worker finishes what it has while the others speak; then the balancer answers what it has, and connections wait
    for the next one. Settings stay as they are: to change those, stop the server and start it.
    """
    if not rolling:
        fail("only --rolling is offered; to stop and start everything, end `chorus serve` and start it again")
    server = _Control(port, run_dir)
    before = server.ask("GET", "/state")
    for index in before["workers"]:
        tell(f"worker {index}: draining")
        server.replace(index)
        tell(f"worker {index}: ready again")
    if workers_only:
        return
    tell("balancer: finishing what it has")
    server.ask("POST", "/restart")
    while True:
        state = server.state()
        if state is not None and state["startedAt"] != before["startedAt"] and state["reason"] is None:
            break
        time.sleep(LOOK_SECONDS)
    tell("balancer: ready again")


class _Control:
    """The control socket of the server that these settings belong to."""

    def __init__(self, port: int | None, run_dir: Path | None) -> None:
        try:
            settings = Settings.load(port=port, run_dir=run_dir)
        except SettingsError as error:
            fail(str(error))
        self._path = settings.server.control_socket

    def ask(self, method: str, path: str) -> dict[str, Any]:
        """The answer; ends the command where nobody answers."""
        try:
            with self._client() as client:
                answer = client.request(method, path)
        except httpx.HTTPError as error:
            self._unreachable(error)
        report: dict[str, Any] = answer.json()
        return report

    def state(self) -> dict[str, Any] | None:
        """What the balancer says of itself; None while there is none."""
        try:
            with self._client() as client:
                report: dict[str, Any] = client.get("/state").json()
        except httpx.HTTPError:
            return None
        return report

    def replace(self, index: int) -> None:
        """Have a worker replaced, and wait for its successor."""
        try:
            with self._client() as client, client.stream("POST", f"/workers/{index}/replace") as answer:
                lines = [json.loads(line) for line in answer.iter_lines()]
        except httpx.HTTPError as error:
            self._unreachable(error)
        if lines[-1].get("ready") != index:
            fail(f"worker {index} was not replaced: {lines[-1]}", EXIT_REFUSED)

    def _client(self) -> httpx.Client:
        return httpx.Client(transport=httpx.HTTPTransport(uds=str(self._path)), base_url="http://control", timeout=None)

    def _unreachable(self, error: httpx.HTTPError) -> NoReturn:
        fail(
            f"no server answers at {self._path} ({error}): give its --port or --run-dir, as the user that runs it",
            EXIT_UNREACHABLE,
        )
