"""The `chorus` command: starts the server, and sends requests to a running one as any other client does."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from balancer.cli import cache, calibrate, capacity, check_precision, jobs, keys, models, operate, say, voices
from balancer.cli.console import EXIT_REFUSED, LOCAL_URL, ApiKey, Url, fail, request
from balancer.cli.operate import health_of_this_host
from balancer.cli.options import EngineOption, ModelDirOption, PrecisionOption, RuntimeOption
from balancer.cli.start_log import as_json, fail_to_start, report
from balancer.cli.status_table import status_table
from balancer.cpu_lists import format_cpus
from balancer.host.layout import Layout
from balancer.launch.plan import choose_layout, with_weights
from balancer.launch.preflight import LaunchError, TransientLaunchError, check
from balancer.launch.supervisor import become_supervisor
from balancer.settings import Settings, SettingsError, SettingsTable, tables
from balancer.version import FULL_VERSION
from worker.precision import detect_processor, precision_remarks

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
"""Hosts of URLs whose server may be asked on its control socket."""

POLL_INTERVAL_SECONDS = 1.0
"""Interval at which `chorus status` refreshes its table."""

app = typer.Typer(
    help="Text to speech at scale from ordinary CPU hosts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(voices.app, name="voices")
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")
app.add_typer(cache.app, name="cache")
app.add_typer(jobs.app, name="jobs")
app.command()(calibrate.calibrate)
app.command()(capacity.capacity)
app.command("check-precision")(check_precision.check_precision)
app.command()(say.say)
app.command()(operate.drain)
app.command()(operate.resume)
app.command()(operate.restart)

WorkersOption = Annotated[int | None, typer.Option(help="Number of worker processes; default: chosen for this host.")]
ThreadsOption = Annotated[int | None, typer.Option(help="Threads of each worker; default: chosen for this host.")]
SlotsOption = Annotated[int | None, typer.Option(help="Utterances that a worker synthesizes at once; default: chosen.")]
CoresOption = Annotated[str | None, typer.Option(help="CPUs of each worker, such as '0-1;2-3'; default: chosen.")]


def main() -> None:
    """Runs the command."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"chorus {FULL_VERSION}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Text to speech at scale from ordinary CPU hosts."""


@app.command()
def serve(
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on; default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; default: 5000.")] = None,
    engine: EngineOption = None,
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    slots: SlotsOption = None,
    cores: CoresOption = None,
    runtime: RuntimeOption = None,
    precision: PrecisionOption = None,
    model_dir: ModelDirOption = None,
    allow_anonymous: Annotated[
        bool | None, typer.Option("--allow-anonymous", help="Listen beyond loopback without API keys.")
    ] = None,
) -> None:
    """Start the balancer and its workers on this host, until Ctrl-C.

    All other settings are environment variables: see `chorus settings`.
    """
    with reporting_errors():
        settings = Settings.load(
            host=host,
            port=port,
            engine=engine,
            workers=workers,
            threads=threads,
            slots=slots,
            cores=cores,
            runtime=runtime,
            precision=precision,
            model_dir=model_dir,
            allow_anonymous=allow_anonymous,
        )
        check(settings)
        chosen = choose_layout(settings)
        print_layout(chosen, settings)
        become_supervisor(with_weights(settings, announce=report), chosen, os.environ)


@app.command()
def layout(
    engine: EngineOption = None,
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    slots: SlotsOption = None,
    cores: CoresOption = None,
    runtime: RuntimeOption = None,
    precision: PrecisionOption = None,
    model_dir: ModelDirOption = None,
) -> None:
    """Show which workers `chorus serve` would start on this host, and why, without starting them."""
    with reporting_errors():
        settings = Settings.load(
            engine=engine,
            workers=workers,
            threads=threads,
            slots=slots,
            cores=cores,
            runtime=runtime,
            precision=precision,
            model_dir=model_dir,
        )
        print_layout(choose_layout(settings), settings)


@app.command()
def settings(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown: a heading and a table for each group.")
    ] = False,
) -> None:
    """List all settings by group: environment variable, default and meaning."""
    if markdown:
        typer.echo(settings_markdown(), nl=False)
        return
    console = Console()
    for group in tables():
        listing = Table("variable", "default", "meaning", title=group.title, title_justify="left")
        for row in group.rows:
            listing.add_row(*row)
        console.print(listing)


@app.command()
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


def print_layout(chosen: Layout, settings: Settings) -> None:
    """Prints a layout, the reasons for it, and remarks on the precisions that this processor supports.

    Where the log is JSON, the layout is an object of it.
    """
    options = settings.engine_options()
    remarks = precision_remarks(options.precision, detect_processor()) if options.batched else ()
    if settings.logging.log_format == "json":
        workers = [format_cpus(cpus) for cpus in chosen.workers]
        fields = {"engine": options.label(), "workers": workers, "threads": chosen.threads, "slots": chosen.slots}
        typer.echo(as_json("info", " ".join((*chosen.reasons, *remarks)), **fields))
        return
    table = Table("worker", "CPUs", "threads", "slots", title=f"Engine {options.label()}", title_justify="left")
    for index, cpus in enumerate(chosen.workers):
        table.add_row(str(index), format_cpus(cpus), str(chosen.threads), str(chosen.slots))
    console = Console()
    console.print(table)
    for reason in (*chosen.reasons, *remarks):
        console.print(reason, markup=False, highlight=False, soft_wrap=True)


def settings_markdown() -> str:
    """Returns the settings as docs/configuration.md holds them: a heading and a table for each group."""
    return "\n".join(_group_markdown(group) for group in tables())


def _group_markdown(group: SettingsTable) -> str:
    rows = [f"| `{name}` | {f'`{default}`' if default else ''} | {meaning} |" for name, default, meaning in group.rows]
    return "\n".join([f"## {group.title}", "", "| variable | default | meaning |", "|---|---|---|", *rows, ""])


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Reports an error that keeps the server from starting, and ends the command.

    The exit code is 1 if another start may succeed, and EX_CONFIG of sysexits.h if it would not.
    """
    try:
        yield
    except TransientLaunchError as error:
        fail_to_start(str(error), EXIT_REFUSED)
    except (SettingsError, LaunchError) as error:
        fail_to_start(str(error), os.EX_CONFIG)


def _health(url: str, api_key: str) -> dict[str, Any]:
    """The server's report. Without an API key that it requires, the control socket has it, on the server's host."""
    report: dict[str, Any] = request("GET", url, "/health", api_key, accepted=(200, 503)).json()
    if "workers" not in report and httpx.URL(url).host in LOOPBACK_HOSTS:
        report = health_of_this_host(httpx.URL(url).port) or report
    if "workers" not in report:
        fail(f"{url} tells no more than {report['status']!r} without an API key: set CHORUS_API_KEY, or use --api-key")
    return report
