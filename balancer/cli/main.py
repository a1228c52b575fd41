"""The `chorus` command: starts the server, and speaks to a running one as any client would."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from balancer.audio.formats import AudioFormat
from balancer.cli import cache, calibrate, check_precision, jobs, keys, models, operate, voices
from balancer.cli.console import EXIT_REFUSED, LOCAL, ApiKey, Url, ask, fail, messages, tell
from balancer.cli.status_table import status_table
from balancer.cpu_lists import format_cpus
from balancer.host.layout import Layout
from balancer.launch.plan import choose_layout, with_weights
from balancer.launch.preflight import LaunchError, check
from balancer.launch.supervisor import become_supervisor
from balancer.settings import Settings, SettingsError, SettingsTable, tables
from worker.cards import CARDS, Runtime
from worker.precision import Precision, detect_processor, precision_remarks

LOOK_SECONDS = 1.0

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
app.command("check-precision")(check_precision.check_precision)
app.command()(operate.drain)
app.command()(operate.resume)
app.command()(operate.restart)

Engine = Annotated[str | None, typer.Option(help=f"Engine of the workers: {', '.join(sorted(CARDS))}.")]
Workers = Annotated[int | None, typer.Option(help="Worker processes; left out: chosen for this host.")]
Threads = Annotated[int | None, typer.Option(help="Threads a worker; left out: chosen for this host.")]
Slots = Annotated[int | None, typer.Option(help="Utterances that a worker speaks at once; left out: chosen.")]
Cores = Annotated[str | None, typer.Option(help="CPUs of each worker, such as '0-1;2-3'.")]
RunBy = Annotated[Runtime | None, typer.Option("--runtime", help="Our loops, or upstream's own classes.")]
Numbers = Annotated[Precision | None, typer.Option("--precision", help="Numbers of the batched runtime.")]
ModelDir = Annotated[Path | None, typer.Option(help="Folder of the engine's weights; left out: the hub's cache.")]


def main() -> None:
    """Entry point of the command."""
    app()


@app.command()
def serve(
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on; 127.0.0.1 if left out.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 5000 if left out.")] = None,
    engine: Engine = None,
    workers: Workers = None,
    threads: Threads = None,
    slots: Slots = None,
    cores: Cores = None,
    runtime: RunBy = None,
    precision: Numbers = None,
    model_dir: ModelDir = None,
    allow_anonymous: Annotated[
        bool | None, typer.Option("--allow-anonymous", help="Listen beyond loopback without API keys.")
    ] = None,
) -> None:
    """Start the balancer and its workers here, until Ctrl-C.

    Every other setting is an environment variable: see `chorus settings`.
    """
    with refusing():
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
        become_supervisor(with_weights(settings), chosen, os.environ)


@app.command()
def layout(
    engine: Engine = None,
    workers: Workers = None,
    threads: Threads = None,
    slots: Slots = None,
    cores: Cores = None,
    runtime: RunBy = None,
    precision: Numbers = None,
    model_dir: ModelDir = None,
) -> None:
    """Show what serve would start here, and why. Starts nothing."""
    with refusing():
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
    """List every setting by group: environment variable, default and meaning."""
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
    text: Annotated[str, typer.Argument(help="What to say; - reads it from standard input.")],
    voice: Annotated[str, typer.Option(help="A voice's name or alias.")] = "default",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File to write; left out: speech.FORMAT, or the pipe."),
    ] = None,
    audio_format: Annotated[
        AudioFormat | None, typer.Option("--format", help="Left out: the file's ending, else wav.")
    ] = None,
    speed: Annotated[float, typer.Option(min=0.25, max=4.0, help="Tempo.")] = 1.0,
    seed: Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="Makes the audio reproducible.")] = None,
    url: Url = LOCAL,
    api_key: ApiKey = "",
) -> None:
    """Speak a text through a running server, into a file or a pipe."""
    words = sys.stdin.buffer.read().decode(errors="surrogateescape") if text == "-" else text
    chosen = audio_format or _format_of(output)
    target = output or (Path(f"speech.{chosen}") if sys.stdout.isatty() else None)
    body = {"text": words, "voice": voice, "format": chosen.value, "speed": speed}
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
    with indicator:
        indicator.add_task(f"speaking {len(words)} characters")
        answer = ask("POST", url, "/tts", api_key, json=body)
    try:
        if target is None:
            sys.stdout.buffer.write(answer.content)
            sys.stdout.buffer.flush()
            return
        target.write_bytes(answer.content)
    except BrokenPipeError:
        raise  # whoever reads the pipe has heard enough
    except OSError as error:
        fail(f"cannot write {target or 'to standard output'}: {error.strerror}")
    tell(f"{target}: {float(answer.headers['X-Audio-Seconds']):.1f} s of {chosen.value}")


@app.command()
def status(
    once: Annotated[bool, typer.Option("--once", help="Print the table once and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the server's report as JSON and end.")] = False,
    url: Url = LOCAL,
    api_key: ApiKey = "",
) -> None:
    """Watch the workers of a running server: state, cores, memory, utterances done, speed.

    Ends at once, with exit code 1, where the server cannot speak; on a terminal it goes on until Ctrl-C.
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
                time.sleep(LOOK_SECONDS)
                live.update(status_table(_health(url, api_key)), refresh=True)
        except KeyboardInterrupt:
            return


def print_layout(chosen: Layout, settings: Settings) -> None:
    """Print a layout, its reasons and what the processor is good for below it."""
    engine = settings.engine_options()
    listing = Table("worker", "CPUs", "threads", "slots", title=f"Engine {engine.label()}", title_justify="left")
    for index, cpus in enumerate(chosen.workers):
        listing.add_row(str(index), format_cpus(cpus), str(chosen.threads), str(chosen.slots))
    console = Console()
    console.print(listing)
    for reason in (
        *chosen.reasons,
        *(precision_remarks(engine.precision, detect_processor()) if engine.batched else ()),
    ):
        console.print(reason, markup=False, highlight=False, soft_wrap=True)


def settings_markdown() -> str:
    """Returns the settings as docs/configuration.md holds them: a heading and a table for each group."""
    return "\n".join(_group_markdown(group) for group in tables())


def _group_markdown(group: SettingsTable) -> str:
    rows = [f"| `{name}` | {f'`{default}`' if default else ''} | {meaning} |" for name, default, meaning in group.rows]
    return "\n".join([f"## {group.title}", "", "| variable | default | meaning |", "|---|---|---|", *rows, ""])


@contextmanager
def refusing() -> Iterator[None]:
    """Turn what keeps the server from starting into a message and exit code 1."""
    try:
        yield
    except (SettingsError, LaunchError) as error:
        fail(str(error))


def _format_of(output: Path | None) -> AudioFormat:
    if output is None:
        return AudioFormat.WAV
    endings = {audio_format.suffix: audio_format for audio_format in AudioFormat}
    if output.suffix.lower() not in endings:
        known = ", ".join(endings)
        raise typer.BadParameter(f"cannot tell the format from {output.name!r}: end it in {known}, or give --format")
    return endings[output.suffix.lower()]


def _health(url: str, api_key: str) -> dict[str, Any]:
    report: dict[str, Any] = ask("GET", url, "/health", api_key, accepted=(200, 503)).json()
    return report
