"""`chorus calibrate`: measures which worker configuration is best on this host, for `chorus serve` to use."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from balancer.cache.weights_fingerprint import weights_fingerprint
from balancer.cli.console import fail, messages, tell
from balancer.cli.options import EngineOption, ModelDirOption, PrecisionOption, RuntimeOption
from balancer.cpu_lists import LayoutError
from balancer.host.calibration import (
    DEFAULT_SLOTS,
    Calibration,
    Measurement,
    Objective,
    default_threads,
    earliest,
    probes,
    worker_configurations,
)
from balancer.host.calibration_run import CalibrationRunError, RunLimits, measure_layout
from balancer.host.calibration_store import save
from balancer.host.cpu_budget import CpuBudget, Host
from balancer.host.layout import Layout, plan_layout
from balancer.host.memory_budget import WorkerMemory
from balancer.host.topology import detect_topology
from balancer.host.wording import counted
from balancer.launch.plan import calibration_conditions, with_weights
from balancer.launch.preflight import LaunchError, check_engine, check_voices
from balancer.settings.settings import Settings, SettingsError
from worker.precision import detect_processor, precision_remarks

EXIT_INTERRUPTED = 130
FIRST_SOUNDS = 5
"""Streams whose first sound is measured in each configuration, where it decides."""

NumbersOption = Annotated[
    str | None, typer.Option(metavar="N,N,...", help="Numbers to measure; default: chosen for this host.")
]


def calibrate(
    *,
    objective: Annotated[
        Objective,
        typer.Option(
            "--for",
            help="Goal: throughput (audio per second of the whole host), or latency (time to first audio).",
        ),
    ] = Objective.THROUGHPUT,
    engine: EngineOption = None,
    model_dir: ModelDirOption = None,
    runtime: RuntimeOption = None,
    precision: PrecisionOption = None,
    threads: NumbersOption = None,
    slots: NumbersOption = None,
    utterances: Annotated[
        int | None,
        typer.Option(min=1, help="Utterances of each worker in each configuration; default: two for each slot."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0, help="Seconds after which no further utterance of a configuration is started.")
    ] = 60.0,
) -> None:
    """Measure which worker configuration is best on this host: threads and slots of each worker.

    For each configuration, starts as many workers as the host has room for, has
    all of them synthesize at once, and measures the throughput. With `--for
    latency`, it also measures the time to the first audio of a single stream on
    the idle host. Of the configurations within 10 % of the shortest time, the
    one with the highest throughput is saved. `chorus serve` and `chorus layout`
    use the saved result. This takes minutes; nothing else should run on the
    host meanwhile.
    """
    with _clean_interruption():
        settings = Settings.load(engine=engine, model_dir=model_dir, runtime=runtime, precision=precision)
        check_engine(settings)
        check_voices(settings)
        host = detect_topology()
        layouts = _layouts(settings, host, objective, _numbers("--threads", threads), _numbers("--slots", slots))
        settings = with_weights(settings, announce=tell)
        conditions = calibration_conditions(settings, host, weights_fingerprint(settings))
        if settings.engine_options().batched is not None:
            for remark in precision_remarks(settings.engine.precision, detect_processor()):
                tell(remark)
        limits = RunLimits(utterances, seconds, FIRST_SOUNDS if objective is Objective.LATENCY else 0)
        measure = _measure_for_latency if objective is Objective.LATENCY else _measure
        calibration = Calibration(
            conditions=conditions,
            measured_at=datetime.now(UTC),
            measurements=tuple(measure(settings, layouts, limits)),
            objective=objective,
        )
        Console().print(calibration_table(calibration))
        file = save(calibration, settings.storage.cache_dir)
        tell(f"saved in {file}: `chorus serve` uses it from now on, unless threads or slots are given")


def _numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise typer.BadParameter(f"{option} {text!r} is not a list of positive numbers such as 1,2,4")
    return numbers


def _layouts(
    settings: Settings, host: Host, objective: Objective, threads: Sequence[int] | None, slots: Sequence[int] | None
) -> list[Layout]:
    """Returns a layout for each configuration, with as many workers as fit, and reports those that do not fit."""
    options = settings.engine_options(slots=max(slots or (1,)))
    if (reason := options.unsupported_reason()) is not None:
        fail(reason)
    budget = CpuBudget.of(host)
    max_threads = budget.max_threads_per_worker
    if threads is not None and max(threads) > max_threads:
        fail(f"a worker can have at most {counted(max_threads, 'core')} on this host, so not {max(threads)} threads")
    configurations = worker_configurations(
        threads or default_threads(objective, min(max_threads, budget.max_threads)),
        slots or ((1,) if options.batched is None else DEFAULT_SLOTS),
    )
    layouts = []
    for worker_threads, worker_slots in configurations:
        try:
            layouts.append(plan_layout(host, WorkerMemory.of(options), threads=worker_threads, slots=worker_slots))
        except LayoutError as error:
            tell(f"skipped: {counted(worker_threads, 'thread')} and {counted(worker_slots, 'slot')}: {error}")
    if not layouts:
        fail("no configuration fits this host")
    return layouts


def _measure_for_latency(settings: Settings, layouts: Sequence[Layout], limits: RunLimits) -> Iterator[Measurement]:
    """Measures every number of threads first, and then all slots with those threads that sound earliest."""
    by_configuration = {(layout.threads, layout.slots): layout for layout in layouts}
    first = probes(by_configuration, WorkerMemory.of(settings.engine_options()).default_slots)
    measurements = list(_measure(settings, [by_configuration[one] for one in first], limits))
    yield from measurements
    threads = {measurement.threads for measurement in earliest(measurements)}
    others = [layout for one, layout in by_configuration.items() if one not in first and layout.threads in threads]
    yield from _measure(settings, others, limits)


def _measure(settings: Settings, layouts: Sequence[Layout], limits: RunLimits) -> Iterator[Measurement]:
    """Measures one layout after another, with a progress bar on a terminal, and prints a line for each."""
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
            task = bar.add_task(name, total=len(layout.workers) * limits.utterances_per_worker(layout.slots))
            measurement = measure_layout(settings, layout, limits, lambda task=task: bar.advance(task))  # type: ignore[misc]
            bar.remove_task(task)
            tell(f"{number}/{len(layouts)}: {measurement}")
            yield measurement


def calibration_table(calibration: Calibration) -> Table:
    """Returns the measurements as a table, the best first."""
    conditions = calibration.conditions
    for_latency = calibration.objective is Objective.LATENCY
    table = Table(
        "threads",
        "slots",
        "workers",
        "audio s/s",
        "per core",
        "s per utterance",
        "memory per worker",
        *(["first sound, s"] if for_latency else []),
        title=f"Engine {conditions.engine}, {counted(conditions.cores, 'core')}, for {calibration.objective}",
        title_justify="left",
    )
    for measurement in calibration.ranked:
        table.add_row(
            str(measurement.threads),
            str(measurement.slots),
            str(measurement.workers),
            f"{measurement.speed:.3g}",
            f"{measurement.speed / conditions.cores:.3g}",
            f"{measurement.answer_seconds:.3g}",
            decimal(measurement.worker_bytes),
            *([f"{measurement.first_sound_seconds:.3g}"] if for_latency else []),
        )
    return table


@contextmanager
def _clean_interruption() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP end the block as Ctrl-C does, and reports errors and interruptions of it."""

    def interrupt(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)  # a running event loop turns it into an orderly end

    # A shell makes a command in the background ignore SIGINT.
    handlers = {signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler)}
    handlers |= {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except (SettingsError, LaunchError, LayoutError, CalibrationRunError, OSError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        tell("interrupted: nothing was saved")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
