"""The `chorus` command: starts the server, and sends requests to a running one as any other client does."""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.live import Live
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from balancer.audio.formats import AudioFormat
from balancer.cli import cache, calibrate, capacity, check_precision, jobs, keys, models, operate, player, voices
from balancer.cli.console import EXIT_REFUSED, LOCAL_URL, ApiKey, Url, fail, messages, request, streamed, tell
from balancer.cli.operate import health_of_this_host
from balancer.cli.options import EngineOption, ModelDirOption, PrecisionOption, RuntimeOption
from balancer.cli.status_table import status_table
from balancer.cpu_lists import format_cpus
from balancer.host.layout import Layout
from balancer.launch.plan import choose_layout, with_weights
from balancer.launch.preflight import LaunchError, check
from balancer.launch.supervisor import become_supervisor
from balancer.settings import Settings, SettingsError, SettingsTable, tables
from worker.precision import detect_processor, precision_remarks

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
"""Hosts of URLs whose server may be asked on its control socket."""

POLL_INTERVAL_SECONDS = 1.0
"""Interval at which `chorus status` refreshes its table."""

STANDARD_OUTPUT = 1
"""Its file descriptor."""

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
        become_supervisor(with_weights(settings, announce=tell), chosen, os.environ)


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
def say(
    text: Annotated[str, typer.Argument(help="Text to speak; - reads it from standard input.")],
    *,
    voice: Annotated[str, typer.Option(help="Name or alias of the voice.")] = "default",
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Output file; default: speech.FORMAT, or standard output if that is a pipe."
        ),
    ] = None,
    audio_format: Annotated[
        AudioFormat | None,
        typer.Option("--format", help="Audio format; default: by the output file's suffix, else wav."),
    ] = None,
    speed: Annotated[float, typer.Option(min=0.25, max=4.0, help="Speaking rate.")] = 1.0,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="Seed, which makes the audio reproducible.")
    ] = None,
    play: Annotated[bool, typer.Option("--play", help="Play it while it is made.")] = False,
    url: Url = LOCAL_URL,
    api_key: ApiKey = "",
) -> None:
    """Synthesize a text with a running server, into a file, or into a pipe or a player while it is made."""
    if play and (output is not None or audio_format is not None):
        raise typer.BadParameter("--play writes no file: leave out -o and --format")
    input_text = sys.stdin.buffer.read().decode(errors="surrogateescape") if text == "-" else text
    output_format = audio_format or _format_of(output)
    target = output or (Path(f"speech.{output_format}") if sys.stdout.isatty() else None)
    body = {"text": input_text, "voice": voice, "format": output_format.value, "speed": speed}
    if seed is not None:
        body["seed"] = seed
    indicator = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=messages,
        transient=True,
        disable=not messages.is_terminal,
    )
    if play:
        with indicator:
            _play(indicator, len(input_text), streamed("POST", url, "/tts", api_key, json=body | {"stream": True}))
        return
    if target is None:
        # A file that is played later is to have its length in its header.
        body["stream"] = not stat.S_ISREG(os.fstat(STANDARD_OUTPUT).st_mode)
        with indicator:
            _pass_on(indicator, len(input_text), streamed("POST", url, "/tts", api_key, json=body))
        return
    with indicator:
        indicator.add_task(f"synthesizing {len(input_text)} characters")
        response = request("POST", url, "/tts", api_key, json=body)
    try:
        target.write_bytes(response.content)
    except OSError as error:
        fail(f"cannot write {target}: {error.strerror}")
    tell(f"{target}: {float(response.headers['X-Audio-Seconds']):.1f} s of {output_format.value}")


def _pass_on(indicator: Progress, characters: int, answer: AbstractContextManager[Iterator[bytes]]) -> None:
    """Pass audio on to standard output as it comes."""
    with answer as pieces:
        for piece in _counted(indicator, characters, pieces):
            try:
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
            except BrokenPipeError:
                raise  # the reader of the pipe has closed it
            except OSError as error:
                fail(f"cannot write to standard output: {error.strerror}")


def _play(indicator: Progress, characters: int, answer: AbstractContextManager[Iterator[bytes]]) -> None:
    """Play audio as it comes."""
    try:
        command = player.find_player()
        with answer as pieces:
            player.play(command, _counted(indicator, characters, pieces))
    except player.PlayerError as error:
        fail(str(error))


def _counted(indicator: Progress, characters: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces; the indicator tells how much has come."""
    task, size = indicator.add_task(f"synthesizing {characters} characters"), 0
    for piece in pieces:
        size += len(piece)
        indicator.update(task, description=f"synthesizing {characters} characters: {size / 1000:,.0f} kB")
        yield piece


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
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "level": "info",
            "process": "serve",
            "message": " ".join((*chosen.reasons, *remarks)),
            "engine": options.label(),
            "workers": [format_cpus(cpus) for cpus in chosen.workers],
            "threads": chosen.threads,
            "slots": chosen.slots,
        }
        typer.echo(json.dumps(entry))
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
    """Reports an error that keeps the server from starting, and ends the command with exit code 1."""
    try:
        yield
    except (SettingsError, LaunchError) as error:
        fail(str(error))


def _format_of(output: Path | None) -> AudioFormat:
    if output is None:
        return AudioFormat.WAV
    formats = {audio_format.suffix: audio_format for audio_format in AudioFormat}
    if output.suffix.lower() not in formats:
        known = ", ".join(formats)
        raise typer.BadParameter(
            f"cannot tell the format from {output.name!r}: use one of the suffixes {known}, or --format"
        )
    return formats[output.suffix.lower()]


def _health(url: str, api_key: str) -> dict[str, Any]:
    """The server's report. Without an API key that it requires, the control socket has it, on the server's host."""
    report: dict[str, Any] = request("GET", url, "/health", api_key, accepted=(200, 503)).json()
    if "workers" not in report and httpx.URL(url).host in LOOPBACK_HOSTS:
        report = health_of_this_host(httpx.URL(url).port) or report
    if "workers" not in report:
        fail(f"{url} tells no more than {report['status']!r} without an API key: set CHORUS_API_KEY, or use --api-key")
    return report
