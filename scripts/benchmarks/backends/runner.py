"""Runs each backend as a process of its own, one at a time, confined to the same cores.

No numerical library is imported before its process is confined.
"""

from __future__ import annotations

import gc
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

from scripts.benchmarks.backends.backend import Backend, Workload
from scripts.support.console import report_progress
from scripts.support.kernel_cache import cache_folder
from scripts.support.markdown import plural
from scripts.support.noise import machine_cpu_seconds
from worker.cpu_affinity import confine

_SPAWN = multiprocessing.get_context("spawn")
_END_SECONDS = 10


class BackendError(RuntimeError):
    """A backend failed, or the steps could not be exported; the message says which."""


@dataclass(frozen=True)
class StepTask:
    """The steps that every backend computes in its turn."""

    sizes: dict[Workload, tuple[int, ...]]
    """Rows of the decode steps, frames of the estimator's steps."""
    engine: str
    weights: Path
    folder: Path
    """Folder with the files of `export.export_steps`."""
    rounds: int
    min_seconds: float
    """Minimum time for the steps of one size."""


@dataclass(frozen=True)
class StepTimings:
    """The times of one backend in one workload with a number of threads."""

    workload: Workload
    backend: Backend
    threads: int
    seconds: dict[int, list[float]]
    """Time of every step, by size."""
    differences: list[float] = field(default_factory=list)
    """Largest difference from PyTorch's output in each round, as a share of the range of the outputs."""


@dataclass(frozen=True)
class _BackendProcess:
    backend: Backend
    process: Any
    pipe: Connection

    def step_seconds(self, workload: Workload, size: int) -> list[float]:
        """Compute steps of a size; the time of each. Raises BackendError if the process ends."""
        seconds: list[float] = self._request(workload, size)
        return seconds

    def difference(self, workload: Workload) -> float:
        """The difference of the last output from PyTorch's. Raises BackendError if the process ends."""
        return float(self._request(workload, None))

    def _request(self, workload: Workload, size: int | None) -> Any:
        try:
            self.pipe.send((workload, size))
            return self.pipe.recv()
        except (EOFError, OSError) as error:
            raise BackendError(f"{self.backend} {self.backend.precision} failed: see above") from error


def export_steps(**arguments: Any) -> None:
    """Call `export.export_steps` in a process of its own, which keeps this one small. Raises BackendError."""
    process = _SPAWN.Process(target=_export, kwargs=arguments, daemon=True)
    with _running(process):
        process.join()
    if process.exitcode:
        raise BackendError("the steps could not be exported: see above")


def measure_in_turns(
    task: StepTask, backends: Sequence[Backend], cpus: Sequence[int]
) -> Iterator[tuple[list[StepTimings], float]]:
    """Have the backends compute the steps by turns on these CPUs, with a thread per CPU. Raises BackendError.

    Yields after each turn the timings so far, and the cores that all other programs used in that turn. PyTorch comes
    first, as its outputs are the reference.
    """
    timings = [
        StepTimings(workload, backend, len(cpus), {size: [] for size in sizes})
        for workload, sizes in task.sizes.items()
        for backend in backends
        if backend.runs(workload)
    ]
    for number in range(task.rounds):
        # The order alternates, so that a machine that heats up or gets busy favours no backend.
        for backend in backends if number % 2 == 0 else reversed(backends):
            turn = f"{plural(len(cpus), 'thread')}, round {number + 1} of {task.rounds}"
            report_progress(f"{turn}: {backend} {backend.precision}")
            own = [one for one in timings if one.backend == backend]
            others_cores = _take_turn(task, backend, tuple(cpus), own)
            yield [one for one in timings if one.differences], others_cores


def _take_turn(task: StepTask, backend: Backend, cpus: tuple[int, ...], timings: Sequence[StepTimings]) -> float:
    """Add the times of one turn to the backend's timings; returns the cores that all other programs used."""
    with _start_backend(task, backend, cpus) as process:
        clocks = _CpuClocks(process.process.pid)
        for one in timings:
            for size, seconds in one.seconds.items():
                seconds.extend(process.step_seconds(one.workload, size))
            one.differences.append(process.difference(one.workload))
        return clocks.others_cores()


@contextmanager
def _start_backend(task: StepTask, backend: Backend, cpus: tuple[int, ...]) -> Iterator[_BackendProcess]:
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_serve, args=(theirs, task, backend, cpus), daemon=True)
    with _running(process):
        theirs.close()
        try:
            ours.recv()
        except EOFError as error:
            raise BackendError(f"{backend} {backend.precision} could not be loaded: see above") from error
        yield _BackendProcess(backend, process, ours)


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


class _CpuClocks:
    """CPU time of the machine, of this process and of the backend's process since they were created."""

    def __init__(self, pid: int) -> None:
        self._processes = [psutil.Process(), psutil.Process(pid)]
        self._before = self._now()

    def others_cores(self) -> float:
        """The cores that all other programs have used."""
        passed, machine, own = (now - before for now, before in zip(self._now(), self._before, strict=True))
        return max(0.0, machine - own) / passed

    def _now(self) -> tuple[float, float, float]:
        times = [process.cpu_times() for process in self._processes]
        return time.perf_counter(), machine_cpu_seconds(), sum(one.user + one.system for one in times)


# All functions from here on run in processes of their own.


def _export(**arguments: Any) -> None:
    from scripts.benchmarks.backends import export  # noqa: PLC0415 - loads numerical libraries

    export.export_steps(**arguments)


def _serve(pipe: Connection, task: StepTask, backend: Backend, cpus: tuple[int, ...]) -> None:
    """Answer requests: (workload, size) with the times of steps, (workload, None) with the output's difference."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process ends this one
    confine(cpus, len(cpus))
    # As in a worker, see `worker.server`: it neither delays the imports nor disturbs a step.
    gc.disable()
    from worker.engines.chatterbox.kernels import disk_cache  # noqa: PLC0415 - loads numerical libraries

    disk_cache.enable(cache_folder(task.folder))  # compiled once for all turns
    from scripts.benchmarks.backends import implementations  # noqa: PLC0415 - the same

    @cache
    def load(workload: Workload) -> Callable[[int], Callable[[], Any]]:
        return implementations.load_backend(
            backend, workload, task.folder, task.engine, task.weights, threads=len(cpus)
        )

    load(next(workload for workload in task.sizes if backend.runs(workload)))
    pipe.send(None)
    step: Callable[[], Any] = list
    while True:
        try:
            workload, size = pipe.recv()
        except EOFError:
            return
        if size is None:
            pipe.send(_difference(step(), task.folder / f"{workload}.npy"))
        else:
            step = list  # frees the last step: two do not fit into memory
            step = load(workload)(size)
            step()
            pipe.send(_step_seconds(step, task.min_seconds))


def _difference(output: Any, file: Path) -> float:
    """The largest difference from the output in `file`, as a share of its range; the first output is written there."""
    import numpy as np  # noqa: PLC0415

    if not file.exists():
        np.save(file, output)
    reference = np.load(file)
    return float(np.abs(output - reference).max() / np.ptp(reference))


def _step_seconds(step: Callable[[], Any], min_seconds: float) -> list[float]:
    """Compute the step at least once and for at least `min_seconds`; the time of each."""
    seconds: list[float] = []
    while not seconds or sum(seconds) < min_seconds:
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return seconds
