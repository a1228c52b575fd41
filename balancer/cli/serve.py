"""`chorus serve` starts a server on this host; `chorus layout` shows which workers it would have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from balancer.cli.console import EXIT_REFUSED
from balancer.cli.options import EngineOption, ModelDirOption, PrecisionOption, RuntimeOption
from balancer.cli.start_log import as_json, fail_to_start, report
from balancer.cpu_lists import format_cpus
from balancer.host.layout import Layout
from balancer.launch.plan import choose_layout, with_weights
from balancer.launch.preflight import LaunchError, TransientLaunchError, check
from balancer.launch.supervisor import become_supervisor
from balancer.settings.settings import Settings, SettingsError
from worker.precision import detect_processor, precision_remarks

WorkersOption = Annotated[int | None, typer.Option(help="Number of worker processes; default: chosen for this host.")]
ThreadsOption = Annotated[int | None, typer.Option(help="Threads of each worker; default: chosen for this host.")]
SlotsOption = Annotated[int | None, typer.Option(help="Utterances that a worker synthesizes at once; default: chosen.")]
CoresOption = Annotated[str | None, typer.Option(help="CPUs of each worker, such as '0-1;2-3'; default: chosen.")]


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
