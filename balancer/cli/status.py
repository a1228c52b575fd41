"""`chorus status`: watches the workers of a running server."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.live import Live

from balancer.cli.console import EXIT_REFUSED, LOCAL_URL, ApiKey, Url, fail, request
from balancer.cli.operate import health_of_this_host
from balancer.cli.status_table import status_table

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
"""Hosts of URLs whose server may be asked on its control socket."""

POLL_INTERVAL_SECONDS = 1.0
"""Interval at which `chorus status` refreshes its table."""


def status(
    once: Annotated[bool, typer.Option("--once", help="Print the table once.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the server's report as JSON, once.")] = False,
    url: Url = LOCAL_URL,
    api_key: ApiKey = "",
) -> None:
    """Watch the workers of a running server: state, CPUs, memory, completed utterances, speed.

    On a terminal the table is refreshed until Ctrl-C. The exit code is 1 if the
    server cannot serve requests.
    """
    report = _health(url, api_key)
    console = Console()
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    elif once or not console.is_terminal:
        console.print(status_table(report))
    else:
        _watch(console, report, url, api_key)
    if report["status"] != "healthy":
        raise typer.Exit(EXIT_REFUSED)


def _watch(console: Console, report: dict[str, Any], url: str, api_key: str) -> None:
    with Live(status_table(report), console=console, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(POLL_INTERVAL_SECONDS)
                live.update(status_table(_health(url, api_key)), refresh=True)
        except KeyboardInterrupt:
            return


def _health(url: str, api_key: str) -> dict[str, Any]:
    """The server's report. Without an API key that it requires, the control socket has it, on the server's host."""
    report: dict[str, Any] = request("GET", url, "/health", api_key, accepted=(200, 503)).json()
    if "workers" not in report and httpx.URL(url).host in LOOPBACK_HOSTS:
        report = health_of_this_host(httpx.URL(url).port) or report
    if "workers" not in report:
        fail(f"{url} tells no more than {report['status']!r} without an API key: set CHORUS_API_KEY, or use --api-key")
    return report
