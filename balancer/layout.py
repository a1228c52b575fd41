"""Which workers run, on which CPUs and with how many threads each; pure.

Called once by `chorus serve`, before any worker starts. `host.probe` says what the host has.

Many small workers beat one big one: decoding reads all weights for every token and hardly gains from a
second thread. So each physical core gets a worker of one thread, if memory holds so many copies of the model.
All workers get the same number of threads: sums of floating-point numbers depend on it, and a seed must sound
alike from whichever worker.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from worker.cards import EngineCard

_LEAST_RESERVE_BYTES = 512 * 2**20
_RESERVED_SHARE = 0.05
_QUOTA_FOR_BALANCER = 0.5
"""CPUs of a cgroup quota kept from the workers: throttling would stop the balancer along with them."""
_SMALL_HOST = 4
"""Most cores without hyper-threads on which a core for the balancer alone would cost more than it gives."""

_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


class LayoutError(ValueError):
    """No layout can be made; the message says why and what to do."""


@dataclass(frozen=True)
class Core:
    """One physical core."""

    cpus: tuple[int, ...]
    """Numbers of its hyper-threads."""
    node: int
    """NUMA node."""


@dataclass(frozen=True)
class Host:
    """What this process may use of the machine."""

    cores: tuple[Core, ...]
    """Every physical core, in the affinity mask or not."""
    allowed: frozenset[int]
    """The affinity mask: CPU numbers."""
    quota: float | None
    """CPUs that the cgroup may use at once, averaged over its period; None without a limit."""
    available_bytes: int
    """Memory that can be allocated without swapping, within the cgroup's limit."""


@dataclass(frozen=True)
class WorkerPlan:
    """One worker's place."""

    cpus: tuple[int, ...]
    """CPU numbers that it may run on, ascending."""
    threads: int
    """Compute threads of its model."""


@dataclass(frozen=True)
class Layout:
    """The workers to start, in order of their index."""

    workers: tuple[WorkerPlan, ...]
    reasons: tuple[str, ...]
    """What bounded the choice, how the balancer gets its room and what to beware of: a sentence each."""


def plan(
    host: Host,
    card: EngineCard,
    *,
    workers: int | None = None,
    threads: int | None = None,
    cores: tuple[tuple[int, ...], ...] | None = None,
) -> Layout:
    """Choose the layout of `card`'s workers on `host`, or make the one asked for.

    `workers` alone shares the cores evenly; `threads` alone starts as many workers of that many cores as fit;
    `cores` names each worker's CPUs. Every worker has the same `threads`: left out, the physical cores of the
    worker that has the fewest, within a quota. So naming the CPUs of a layout that was chosen gives the same
    layout again. Threads beyond the cores are granted where asked for, with a warning among the reasons.
    Raises LayoutError where memory, the affinity mask or a contradiction forbids what is asked.
    """
    room = _room(host)
    memory = _Memory(host.available_bytes, card.resident_bytes, card.shared_bytes)
    _check_numbers(workers, threads, cores)
    if cores is not None:
        _check_groups(cores, room)
        memory.check(len(cores))
        plans = _with_threads(room, [tuple(sorted(cpus)) for cpus in cores], threads)
        bound = f"{_many(len(plans), 'worker')} on the CPUs asked for."
    elif workers is not None:
        memory.check(workers)
        plans = _shared(room, workers, threads)
        bound = f"{_many(workers, 'worker')}, as asked."
    else:
        memory.check(1)
        wanted = _wanted(room, threads or 1)
        plans = _shared(room, min(wanted, memory.workers), threads)
        bound = f"Memory holds {_many(memory.workers, 'worker')}: {memory}."
        if wanted <= memory.workers:
            limit = "cores" if room.quota is None else "quota"
            bound = f"{_many(wanted, 'worker')} of {_many(threads or 1, 'thread')}: as many as fit the {limit}."
    remarks = [*_remarks(plans, room, host)]
    if threads is None:
        remarks += _left_over(plans, room)
    return Layout(plans, (bound, *remarks))


def parse_cores(text: str) -> tuple[tuple[int, ...], ...]:
    """Read each worker's CPU numbers from text like `0-1,16;2-3,17`. Raises LayoutError on other text."""
    return tuple(parse_cpus(group) for group in text.split(";"))


def format_cores(groups: Iterable[Sequence[int]]) -> str:
    """Write the text that `parse_cores` reads back to the same groups."""
    return ";".join(_format_cpus(group) for group in groups)


def parse_cpus(text: str) -> tuple[int, ...]:
    """Read CPU numbers from text like `0-3,8`, as Linux writes them. Raises LayoutError on other text."""
    cpus: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise LayoutError(
                f"{part.strip()!r} is neither a CPU number nor an ascending range: write CPUs like 0-1,16 "
                "and put ';' between workers"
            )
        cpus += range(first, last + 1)
    return tuple(cpus)


def _format_cpus(cpus: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for cpu in cpus:
        if runs and cpu == runs[-1][-1] + 1:
            runs[-1].append(cpu)
        else:
            runs.append([cpu])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


@dataclass(frozen=True)
class _Room:
    """The room for workers and balancer together."""

    cores: tuple[Core, ...]
    """Those that the affinity mask touches, reduced to their allowed CPUs, node by node."""
    quota: float | None
    """CPUs, where one thread on each core could use the quota up; else None."""

    @property
    def siblings(self) -> bool:
        """Whether there are hyper-threads beside those of the workers."""
        return any(len(core.cpus) > 1 for core in self.cores)

    @property
    def threads(self) -> int:
        """Most worker threads that leave the balancer enough."""
        if self.quota is not None:
            return max(1, math.floor(self.quota - _QUOTA_FOR_BALANCER))
        if self.siblings or len(self.cores) <= _SMALL_HOST:
            return len(self.cores)
        return len(self.cores) - 1

    def pool(self, threads: int) -> tuple[Core, ...]:
        """Cores to place workers on that have so many threads in all.

        A core for the balancer alone is the first of all, where interrupts land by default.
        """
        if self.quota is not None or threads > self.threads:
            return self.cores
        return self.cores[len(self.cores) - self.threads :]

    def touched(self, cpus: Iterable[int]) -> list[Core]:
        """Cores that have at least one of these CPUs."""
        wanted = set(cpus)
        return [core for core in self.cores if not wanted.isdisjoint(core.cpus)]


def _room(host: Host) -> _Room:
    reduced = (Core(tuple(sorted(host.allowed.intersection(core.cpus))), core.node) for core in host.cores)
    cores = sorted((core for core in reduced if core.cpus), key=lambda core: (core.node, core.cpus))
    if not cores:
        raise LayoutError("the affinity mask holds none of the host's CPUs: allow at least one")
    binds = host.quota is not None and host.quota <= len(cores) and host.quota < len(_cpus(cores))
    return _Room(tuple(cores), host.quota if binds else None)


@dataclass(frozen=True)
class _Memory:
    """How many workers memory holds."""

    available: int
    each: int
    """Bytes that every worker takes for itself."""
    shared: int
    """Bytes that all workers take together, however many they are."""

    @property
    def reserve(self) -> int:
        """Bytes that no worker may count on: the balancer, audio under way, the rest of the system."""
        return max(_LEAST_RESERVE_BYTES, math.ceil(_RESERVED_SHARE * self.available))

    @property
    def workers(self) -> int:
        return max(0, self.available - self.reserve - self.shared) // self.each

    def check(self, workers: int) -> None:
        """Raise LayoutError where so many workers do not fit."""
        if workers <= self.workers:
            return
        need = _size(workers * self.each + self.shared + self.reserve)
        way_out = f"ask for at most {self.workers}" if self.workers else "free memory or run a smaller engine"
        raise LayoutError(f"{_many(workers, 'worker')} would need {need} of memory ({self}): {way_out}")

    def __str__(self) -> str:
        shared = f", {_size(self.shared)} shared" if self.shared else ""
        return (
            f"{_size(self.each)} each{shared}, {_size(self.available)} available, {_size(self.reserve)} kept in reserve"
        )


def _check_numbers(workers: int | None, threads: int | None, cores: tuple[tuple[int, ...], ...] | None) -> None:
    for name, number in (("workers", workers), ("threads", threads)):
        if number is not None and number < 1:
            raise LayoutError(f"{name} is {number}: ask for at least 1, or leave it out to have it chosen")
    if cores is not None and workers is not None and workers != len(cores):
        raise LayoutError(f"workers is {workers} but cores has CPUs for {len(cores)}: make them agree or leave one out")


def _check_groups(groups: tuple[tuple[int, ...], ...], room: _Room) -> None:
    if not groups or not all(groups):
        raise LayoutError("cores has a worker without CPUs: name at least one CPU for each")
    allowed = _cpus(room.cores)
    counts = Counter(cpu for group in groups for cpu in group)
    if strays := sorted(set(counts).difference(allowed)):
        raise LayoutError(
            f"CPUs {_format_cpus(strays)} are outside the affinity mask: choose among {_format_cpus(allowed)}"
        )
    if repeated := sorted(cpu for cpu, times in counts.items() if times > 1):
        raise LayoutError(f"CPUs {_format_cpus(repeated)} are listed more than once: give each to one worker")


def _wanted(room: _Room, threads: int) -> int:
    """Count the workers of so many threads that the cores hold, at least one, whatever memory says."""
    whole = sum(len(node) // threads for node in _by_node(room.pool(threads)))
    return max(1, min(whole, room.threads // threads))


def _shared(room: _Room, workers: int, threads: int | None) -> tuple[WorkerPlan, ...]:
    """Let so many workers share the cores evenly."""
    groups = _split(room.pool(workers * (threads or 1)), workers)
    # A quota bounds time, not place: each worker then roams over its whole share of the cores. Were it pinned
    # to one, the containers of a host would all meet on the first cores and leave the others idle.
    pinned = threads if room.quota is None else None
    return _with_threads(room, [_cpus(group[:pinned]) for group in groups], threads)


def _with_threads(room: _Room, places: Sequence[tuple[int, ...]], threads: int | None) -> tuple[WorkerPlan, ...]:
    """Give the workers on these CPUs so many threads each, or the least of their shares."""
    each = threads or min(_shares(room, places))
    return tuple(WorkerPlan(cpus, each) for cpus in places)


def _shares(room: _Room, places: Sequence[tuple[int, ...]]) -> list[int]:
    """Count the threads that the workers on these CPUs have room for: their cores, or a part of what a quota holds."""
    sizes = [len(room.touched(cpus)) for cpus in places]
    if room.quota is None:
        return sizes
    return [min(size, max(1, part)) for size, part in zip(sizes, _even(room.threads, len(places)), strict=True)]


def _split(cores: Sequence[Core], workers: int) -> list[Sequence[Core]]:
    """Give each worker its cores: an even share of one node, or one core each, in turns, if too few."""
    if workers > len(cores):
        return [(cores[index % len(cores)],) for index in range(workers)]
    nodes = _by_node(cores)
    counts = [0] * len(nodes)
    for _ in range(workers):
        # Highest averages: the next worker goes where it leaves each worker of the node the most cores.
        averages = [len(node) / (count + 1) for node, count in zip(nodes, counts, strict=True)]
        counts[averages.index(max(averages))] += 1
    groups: list[Sequence[Core]] = []
    for node, count in zip(nodes, counts, strict=True):
        rest = iter(node)
        groups += (tuple(islice(rest, size)) for size in _even(len(node), count))
    return groups


def _even(total: int, parts: int) -> list[int]:
    """Divide `total` into so many numbers that differ by at most one, larger ones first."""
    return [total // parts + (index < total % parts) for index in range(parts)]


def _by_node(cores: Iterable[Core]) -> list[list[Core]]:
    nodes: dict[int, list[Core]] = {}
    for core in cores:
        nodes.setdefault(core.node, []).append(core)
    return list(nodes.values())


def _cpus(cores: Iterable[Core]) -> tuple[int, ...]:
    return tuple(sorted(cpu for core in cores for cpu in core.cpus))


def _remarks(plans: Sequence[WorkerPlan], room: _Room, host: Host) -> Iterator[str]:
    """Describe the finished layout, so that every sentence is true however it came about."""
    if len(room.cores) < len(host.cores):
        yield f"The affinity mask leaves {len(room.cores)} of {_many(len(host.cores), 'physical core')}."
    total = sum(plan.threads for plan in plans)
    covered = len(room.touched(cpu for plan in plans for cpu in plan.cpus))
    yield _balancer_remark(room, total, free=len(room.cores) - covered)
    if total > covered or any(plan.threads > len(room.touched(plan.cpus)) for plan in plans):
        yield (
            f"Over-committed: {_many(total, 'worker thread')} on {_many(covered, 'physical core')} "
            "slow each other down."
        )
    homes = [{core.node for core in room.touched(plan.cpus)} for plan in plans]
    if idle := len({core.node for core in room.cores}.difference(*homes)):
        yield f"{_many(idle, 'NUMA node')} without a worker: a worker does not span nodes unless told to."
    if spread := sum(len(home) > 1 for home in homes):
        yield f"{_many(spread, 'worker')} across NUMA nodes, as asked: their memory is partly far away."


def _left_over(plans: Sequence[WorkerPlan], room: _Room) -> Iterator[str]:
    """Say what the workers would have room for, were it not for equal numbers of threads."""
    threads = sum(plan.threads for plan in plans)
    if spare := sum(_shares(room, [plan.cpus for plan in plans])) - threads:
        what = "core" if room.quota is None else "CPU"
        yield f"{_many(spare, what)} left over: only workers of equally many threads sound alike, seed for seed."


def _balancer_remark(room: _Room, threads: int, free: int) -> str:
    if room.quota is not None and threads > room.quota - _QUOTA_FOR_BALANCER:
        return (
            f"{_many(threads, 'worker thread')} can use up the quota of {room.quota:g} CPUs and have the "
            f"balancer throttled too: a quota of {threads + _QUOTA_FOR_BALANCER:g} would prevent it."
        )
    if room.quota is not None:
        return (
            f"The quota of {room.quota:g} CPUs holds {_many(threads, 'worker thread')} and leaves the rest "
            "to the balancer, which is never throttled by them."
        )
    if room.siblings:
        return "The balancer runs on the hyper-threads beside the workers; no core is given up for it."
    if free:
        return f"{_many(free, 'core')} left free for the balancer."
    return "The balancer shares the workers' cores and is served first: workers run at a lower priority."


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _size(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
