"""`chorus calibrate`: measures which shape of workers speaks fastest on this host, for `chorus serve` to go by."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from balancer.cli.console import fail, messages, tell
from balancer.cpu_lists import LayoutError
from balancer.host.calibration import DEFAULT_SLOTS, DEFAULT_THREADS, Calibration, Measurement, worker_configurations
from balancer.host.calibration_run import CalibrationRunError, RunLimits, measure_layout
from balancer.host.calibration_store import save
from balancer.host.cpu_budget import CpuBudget, Host
from balancer.host.layout import Layout, plan_layout
from balancer.host.memory_budget import WorkerMemory
from balancer.host.topology import detect_topology
from balancer.host.wording import counted
from balancer.launch.plan import calibration_conditions, weights_fingerprint, with_weights
from balancer.launch.preflight import LaunchError, check_engine, check_voices
from balancer.settings import Settings, SettingsError
from worker.cards import CARDS, Runtime
from worker.precision import Precision, detect_processor, precision_remarks

EXIT_INTERRUPTED = 130

Numbers = Annotated[str | None, typer.Option(metavar="N,N,...", help="To try; left out: chosen for this host.")]


def calibrate(
    *,
    engine: Annotated[str | None, typer.Option(help=f"Engine to measure: {', '.join(sorted(CARDS))}.")] = None,
    model_dir: Annotated[
        Path | None, typer.Option(help="Folder of the engine's weights; left out: the hub's cache.")
    ] = None,
    runtime: Annotated[Runtime | None, typer.Option(help="Our loops, or upstream's own classes.")] = None,
    precision: Annotated[Precision | None, typer.Option(help="Numbers of the batched runtime.")] = None,
    threads: Numbers = None,
    slots: Numbers = None,
    utterances: Annotated[
        int | None, typer.Option(min=1, help="Of each worker in each shape; left out: two for every slot.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0, help="After so long no utterance of a shape begins.")] = 60.0,
) -> None:
    """Measure which workers speak fastest here: threads of each, and how many utterances it speaks at once.

    Starts the workers that this host has room for, in each shape, all at once, has them speak, and keeps what came of
    it for `chorus serve` and `chorus layout`. It takes minutes, and wants the host for itself.
    """
    with _ended_cleanly():
        settings = Settings.load(engine=engine, model_dir=model_dir, runtime=runtime, precision=precision)
        check_engine(settings)
        check_voices(settings)
        host = detect_topology()
        layouts = _layouts(settings, host, _numbers("--threads", threads), _numbers("--slots", slots))
        settings = with_weights(settings)
        held_for = calibration_conditions(settings, host, weights_fingerprint(settings))
        if settings.engine_options().batched is not None:
            for remark in precision_remarks(settings.engine.precision, detect_processor()):
                tell(remark)
        measurements = _measure(settings, layouts, RunLimits(utterances, seconds))
        calibration = Calibration(conditions=held_for, measured_at=datetime.now(UTC), measurements=tuple(measurements))
        Console().print(table(calibration))
        place = save(calibration, settings.storage.cache_dir)
        tell(f"kept in {place}: `chorus serve` goes by it from now on, unless threads or slots are asked for")


def _numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise typer.BadParameter(f"{option} {text!r} is no list of numbers from 1 on, such as 1,2,4")
    return numbers


def _layouts(
    settings: Settings, host: Host, threads: Sequence[int] | None, slots: Sequence[int] | None
) -> list[Layout]:
    """The layouts of all shapes to try, as many workers each as there is room for; says which are left out."""
    options = settings.engine_options(slots=max(slots or (1,)))
    if (reason := options.unsupported_reason()) is not None:
        fail(reason)
    max_threads = CpuBudget.of(host).max_threads_per_worker
    if threads is not None and max(threads) > max_threads:
        fail(f"{max(threads)} threads are more than the cores that a worker can have here: {max_threads}")
    chosen = worker_configurations(
        threads or [number for number in DEFAULT_THREADS if number <= max_threads],
        slots or ((1,) if options.batched is None else DEFAULT_SLOTS),
    )
    layouts = []
    for each, several in chosen:
        try:
            layouts.append(plan_layout(host, WorkerMemory.of(options), threads=each, slots=several))
        except LayoutError as error:
            tell(f"left out, {counted(each, 'thread')} and {counted(several, 'slot')}: {error}")
    if not layouts:
        fail("no shape is left to try")
    return layouts


def _measure(settings: Settings, layouts: Sequence[Layout], bounds: RunLimits) -> Iterator[Measurement]:
    """Try one layout after the other, with progress on a terminal, else with a line for each."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("utterances"),
        TimeElapsedColumn(),
        console=messages,
        disable=not messages.is_terminal,
        transient=True,
    )
    with bar:
        for number, layout in enumerate(layouts, 1):
            workers = f"{counted(len(layout.workers), 'worker')} of {counted(layout.threads, 'thread')}"
            name = f"{number}/{len(layouts)}: {workers} and {counted(layout.slots, 'slot')}"
            task = bar.add_task(name, total=len(layout.workers) * bounds.utterances_per_worker(layout.slots))
            measurement = measure_layout(settings, layout, bounds, lambda task=task: bar.advance(task))  # type: ignore[misc]
            bar.remove_task(task)
            tell(f"{number}/{len(layouts)}: {measurement}")
            yield measurement


def table(calibration: Calibration) -> Table:
    """What was measured, the best first."""
    held_for = calibration.conditions
    listing = Table(
        "threads",
        "slots",
        "workers",
        "audio s/s",
        "for each core",
        "s to an answer",
        "memory a worker",
        title=f"Engine {held_for.engine}, {counted(held_for.cores, 'core')}",
        title_justify="left",
    )
    for one in calibration.ranked:
        listing.add_row(
            str(one.threads),
            str(one.slots),
            str(one.workers),
            f"{one.speed:.3g}",
            f"{one.speed / held_for.cores:.3g}",
            f"{one.answer_seconds:.3g}",
            decimal(one.worker_bytes),
        )
    return listing


@contextmanager
def _ended_cleanly() -> Iterator[None]:
    """A block that SIGTERM and a closed terminal end as Ctrl-C does: with everything put away."""

    def interrupt(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)  # which the event loop, while there is one, brings to an orderly end

    # A shell that starts a command in the background has it ignore Ctrl-C.
    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler)}
    before |= {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except (SettingsError, LaunchError, LayoutError, CalibrationRunError, OSError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        tell("interrupted: nothing was kept")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
