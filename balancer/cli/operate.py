"""`chorus drain`, `chorus resume` and `chorus restart`: operator commands for the server on this host.

They use the control socket in the run directory, which needs no API key, but the same user and settings as the server.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import httpx
import typer

from balancer.cli.console import EXIT_REFUSED, EXIT_UNREACHABLE, fail, tell
from balancer.host.unix_sockets import unix_transport
from balancer.settings.settings import Settings, SettingsError

POLL_INTERVAL_SECONDS = 0.1

PortOption = Annotated[
    int | None, typer.Option(help="Port of the server, which its default run directory is named after.")
]
RunDirOption = Annotated[
    Path | None, typer.Option(help="Run directory of the server, if CHORUS_RUN_DIR was set for it.")
]


def drain(
    wait: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="Maximum time to wait until nothing is in flight; 0: do not wait."),
    ] = 300.0,
    port: PortOption = None,
    run_dir: RunDirOption = None,
) -> None:
    """Take this host out of service: `/ready` answers 503, but requests that still arrive are served.

    Waits until nothing is in flight; the exit code is 1 if that takes too long.
    `chorus resume` undoes it.
    """
    control = _ControlClient(port, run_dir)
    idle = control.request("POST", "/drain")["idle"]
    tell("draining: /ready answers 503 now")
    deadline = time.monotonic() + wait
    while wait and not idle:
        if time.monotonic() > deadline:
            fail(f"still busy after {wait:g} s; the host remains drained")
        time.sleep(POLL_INTERVAL_SECONDS)
        idle = control.request("GET", "/state")["idle"]
    if idle:
        tell("nothing is in flight")


def resume(port: PortOption = None, run_dir: RunDirOption = None) -> None:
    """Put a drained host back into service."""
    _ControlClient(port, run_dir).request("POST", "/resume")
    tell("in service again")


def restart(
    rolling: Annotated[
        bool, typer.Option("--rolling", help="Restart one process at a time, so that no request fails.")
    ] = False,
    workers_only: Annotated[bool, typer.Option("--workers-only", help="Do not restart the balancer.")] = False,
    patience: Annotated[
        float | None,
        typer.Option(
            min=1, metavar="SECONDS", help="Maximum time until a worker's successor is ready; default: no maximum."
        ),
    ] = None,
    port: PortOption = None,
    run_dir: RunDirOption = None,
) -> None:
    """Restart every process with the installed code and libraries, while the server keeps serving.

    Each worker finishes its utterances while the others take new ones. Then a
    new balancer accepts connections, while the old one finishes its requests.
    Settings do not change: for that, stop and start the server. The exit code is
    1 if a process does not come up with the new code; the others serve.
    """
    if not rolling:
        fail("only --rolling is supported; for a full restart, end `chorus serve` and start it again")
    control = _ControlClient(port, run_dir)
    before = control.request("GET", "/state")
    for index in before["workers"]:
        tell(f"worker {index}: draining")
        control.replace(index, patience)
        tell(f"worker {index}: ready again")
    if workers_only:
        return
    tell("balancer: starting its successor")
    control.request("POST", "/restart")
    while True:
        state = control.state()
        if state is not None and state["startedAt"] != before["startedAt"] and state["reason"] is None:
            break
        if state is not None and state["successorFailure"] is not None:
            fail(f"the balancer was not replaced, and serves on: {state['successorFailure']}")
        time.sleep(POLL_INTERVAL_SECONDS)
    tell("balancer: ready again")


def health_of_this_host(port: int | None) -> dict[str, Any] | None:
    """The state of the server on this host from its control socket; None if none of this user's servers answers."""
    try:
        path = Settings.load(port=port).server.control_socket
        if not path.is_socket():
            return None
        with httpx.Client(transport=unix_transport(path), base_url="http://control") as client:
            report: dict[str, Any] = client.get("/health").json()
    except (SettingsError, httpx.HTTPError, ValueError):
        return None
    return report


class _ControlClient:
    """Client of the control socket of the server with these settings."""

    def __init__(self, port: int | None, run_dir: Path | None) -> None:
        try:
            settings = Settings.load(port=port, run_dir=run_dir)
        except SettingsError as error:
            fail(str(error))
        self._path = settings.server.control_socket

    def request(self, method: str, path: str) -> dict[str, Any]:
        """Sends a request and returns the response. Ends the command if no server answers."""
        try:
            with self._client() as client:
                response = client.request(method, path)
        except httpx.HTTPError as error:
            self._fail_unreachable(error)
        report: dict[str, Any] = response.json()
        if response.is_error:
            fail(report["error"]["message"], EXIT_REFUSED)
        return report

    def state(self) -> dict[str, Any] | None:
        """Returns the state of the balancer, or None while no balancer answers."""
        try:
            with self._client() as client:
                report: dict[str, Any] = client.get("/state").json()
        except httpx.HTTPError:
            return None
        return report

    def replace(self, index: int, patience: float | None) -> None:
        """Has a worker replaced and waits until its successor is ready. Ends the command if that fails."""
        timeout = httpx.Timeout(None, read=patience)
        try:
            with (
                self._client() as client,
                client.stream("POST", f"/workers/{index}/replace", timeout=timeout) as answer,
            ):
                lines = [json.loads(line) for line in answer.iter_lines()]
        except httpx.ReadTimeout:
            fail(f"worker {index} is not ready after {patience:g} s: `chorus status` and the log say why")
        except httpx.HTTPError as error:
            self._fail_unreachable(error)
        if lines[-1].get("ready") != index:
            fail(f"worker {index} was not replaced: {lines[-1]}", EXIT_REFUSED)

    def _client(self) -> httpx.Client:
        return httpx.Client(transport=unix_transport(self._path), base_url="http://control", timeout=None)

    def _fail_unreachable(self, error: httpx.HTTPError) -> NoReturn:
        fail(
            f"no server answers at {self._path} ({error}): run this as the server's user, with its --port or --run-dir",
            EXIT_UNREACHABLE,
        )
