"""The contenders as processes of their own, one at a time and each confined to the same cores.

Nothing here imports a numerical library before its process is confined.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from scripts.benchmarks.backends.backend import Contender
from scripts.support.markdown import plural
from scripts.support.noise import machine_cpu_seconds
from worker.cpu_affinity import confine

_SPAWN = multiprocessing.get_context("spawn")
_END_SECONDS = 10


class FieldError(RuntimeError):
    """There is no result; the message says why."""


@dataclass(frozen=True)
class Task:
    """What all contenders do."""

    sizes: dict[str, tuple[int, ...]]
    """Rows of a decode step, frames of an estimator's, by the work."""
    engine: str
    weights: Path
    folder: Path
    """With what `export.prepare` wrote."""
    rounds: int
    seconds: float
    """Least time of a turn."""


@dataclass(frozen=True)
class Outcome:
    """What came of one contender in one kind of work on so many threads."""

    work: str
    contender: Contender
    threads: int
    seconds: dict[int, list[float]]
    """Of every step that was taken, by size."""
    differences: list[float] = field(default_factory=list)
    """The largest from torch's plain module in each round, as a share of the range of its outputs."""


@dataclass(frozen=True)
class _Player:
    contender: Contender
    process: Any
    pipe: Connection

    def ask(self, work: str, size: int | None) -> Any:
        """What its steps of this size take or, without a size, what the last one's result differs by.

        Raises FieldError where it ended instead.
        """
        try:
            self.pipe.send((work, size))
            return self.pipe.recv()
        except (EOFError, OSError) as error:
            raise FieldError(f"{self.contender} {self.contender.precision} failed: see above") from error


def prepare(**arguments: Any) -> None:
    """Call `export.prepare`, in a process of its own: this one stays small. Raises FieldError."""
    process = _SPAWN.Process(target=_prepare, kwargs=arguments, daemon=True)
    with _running(process):
        process.join()
    if process.exitcode:
        raise FieldError("the steps could not be exported: see above")


def compare(
    task: Task, contenders: Sequence[Contender], cpus: Sequence[int], tell: Callable[[str], None]
) -> Iterator[tuple[list[Outcome], float]]:
    """Have them take turns on these CPUs, a thread for each.

    After each turn gives what has come of those that had one, and the cores that everything else took in it. Torch's
    plain module comes first: the others are held against it. Raises FieldError.
    """
    outcomes = [
        Outcome(work, contender, len(cpus), {size: [] for size in sizes})
        for work, sizes in task.sizes.items()
        for contender in contenders
        if contender.does(work)
    ]
    for number in range(task.rounds):
        # Who begins takes turns, too, once there is something to be held against.
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            turn = f"{plural(len(cpus), 'thread')}, round {number + 1} of {task.rounds}"
            tell(f"{turn}: {contender} {contender.precision}")
            mine = [outcome for outcome in outcomes if outcome.contender == contender]
            others = _take_turn(task, contender, tuple(cpus), mine)
            yield [outcome for outcome in outcomes if outcome.differences], others


def _take_turn(task: Task, contender: Contender, cpus: tuple[int, ...], outcomes: Sequence[Outcome]) -> float:
    """Add what its steps take to its outcomes; the cores that everything else took meanwhile."""
    with _player(task, contender, cpus) as player:
        clocks = _Clocks(player.process.pid)
        for outcome in outcomes:
            for size, seconds in outcome.seconds.items():
                seconds.extend(player.ask(outcome.work, size))
            outcome.differences.append(player.ask(outcome.work, None))
        return clocks.others()


@contextmanager
def _player(task: Task, contender: Contender, cpus: tuple[int, ...]) -> Iterator[_Player]:
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_play, args=(theirs, task, contender, cpus), daemon=True)
    with _running(process):
        theirs.close()
        player = _Player(contender, process, ours)
        try:
            ours.recv()
        except EOFError as error:
            raise FieldError(f"{contender} {contender.precision} could not be loaded: see above") from error
        yield player


@contextmanager
def _running(process: Any) -> Iterator[None]:
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join(_END_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


class _Clocks:
    """CPU seconds of the machine, of this process and of the one that is measured."""

    def __init__(self, pid: int) -> None:
        self._processes = [psutil.Process(), psutil.Process(pid)]
        self._before = self._now()

    def others(self) -> float:
        """The cores that everything else took since this was made."""
        passed, machine, ours = (now - before for now, before in zip(self._now(), self._before, strict=True))
        return max(0.0, machine - ours) / passed

    def _now(self) -> tuple[float, float, float]:
        times = [process.cpu_times() for process in self._processes]
        return time.perf_counter(), machine_cpu_seconds(), sum(one.user + one.system for one in times)


# In processes of their own, from here on.


def _prepare(**arguments: Any) -> None:
    from scripts.benchmarks.backends import export  # noqa: PLC0415

    export.prepare(**arguments)


def _play(pipe: Connection, task: Task, contender: Contender, cpus: tuple[int, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    confine(cpus, len(cpus))
    from scripts.benchmarks.backends import implementations  # noqa: PLC0415 - numerical libraries load here, after the limits
    from scripts.benchmarks.backends.inputs import Work  # noqa: PLC0415

    @cache
    def load(work: str) -> Callable[[int], Callable[[], Any]]:
        return implementations.load(contender, Work(work), task.folder, task.engine, task.weights, threads=len(cpus))

    load(next(work for work in task.sizes if contender.does(work)))
    pipe.send(None)
    step: Callable[[], Any] = list
    while True:
        try:
            work, size = pipe.recv()
        except EOFError:
            return
        if size is None:
            pipe.send(_difference(step(), task.folder / f"{work}.npy"))
        else:
            step = list  # of the real ones there is no room for two
            step = load(work)(size)
            step()
            pipe.send(_timed(step, task.seconds))


def _difference(result: Any, file: Path) -> float:
    """The largest from what is in the file, as a share of its range; the first result is kept there."""
    import numpy as np  # noqa: PLC0415

    if not file.exists():
        np.save(file, result)
    wanted = np.load(file)
    return float(np.abs(result - wanted).max() / np.ptp(wanted))


def _timed(step: Callable[[], Any], least: float) -> list[float]:
    """Seconds of each step until so many seconds have passed, of one at least."""
    taken: list[float] = []
    while not taken or sum(taken) < least:
        started = time.perf_counter()
        step()
        taken.append(time.perf_counter() - started)
    return taken
