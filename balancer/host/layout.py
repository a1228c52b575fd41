"""Which workers run, on which CPUs and with how many threads each; pure.

Called once by `chorus serve`, before any worker starts. `host.topology` finds what the host has.

Many small workers beat one big one: decoding reads all weights for every token and hardly gains from a
second thread. So each physical core gets a worker of one thread, with the slots that the engine's card names, unless
memory holds only fewer slots or fewer workers. Where `chorus calibrate` has measured shapes on this host, the fastest
that memory holds takes the place of that rule.
All workers get the same number of threads: sums of floating-point numbers depend on it, and a seed must sound
alike from whichever worker.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from balancer.cpu_lists import LayoutError, format_cpus
from balancer.host.calibration import Measurement
from balancer.host.memory_budget import MemoryBudget, WorkerMemory
from balancer.host.wording import counted

_QUOTA_FOR_BALANCER = 0.5
"""CPUs of a cgroup quota kept from the workers: throttling would stop the balancer along with them."""
_SMALL_HOST = 4
"""Most cores without hyper-threads on which a core for the balancer alone would cost more than it gives."""


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
class WorkerPlacement:
    """One worker's place."""

    cpus: tuple[int, ...]
    """CPU numbers that it may run on, ascending."""
    threads: int
    """Compute threads of its model."""


@dataclass(frozen=True)
class Layout:
    """The workers to start, in order of their index."""

    workers: tuple[WorkerPlacement, ...]
    slots: int
    """Utterances that each of them speaks at once."""
    reasons: tuple[str, ...]
    """What bounded the choice, how the balancer gets its room and what to beware of: a sentence each."""

    @property
    def places(self) -> str:
        """Every worker's CPUs and threads as `python -m worker` reads them: `0,8/1;1,9/1`."""
        return ";".join(f"{','.join(map(str, worker.cpus))}/{worker.threads}" for worker in self.workers)


def plan_layout(
    host: Host,
    demand: WorkerMemory,
    *,
    workers: int | None = None,
    threads: int | None = None,
    slots: int | None = None,
    cores: tuple[tuple[int, ...], ...] | None = None,
    measured: Sequence[Measurement] = (),
) -> Layout:
    """Choose the layout of workers of that `demand` on `host`, or make the one asked for.

    `workers` alone shares the cores evenly; `threads` alone starts as many workers of that many cores as fit;
    `cores` names each worker's CPUs. Every worker has the same `threads`: left out, the physical cores of the
    worker that has the fewest, within a quota. So naming the CPUs of a layout that was chosen gives the same
    layout again. Threads beyond the cores are granted where asked for, with a warning among the reasons.
    `measured` are the shapes of this host's calibration, the best first: what was not asked for comes from the first
    that fits, else from the rules. Raises LayoutError where memory, the affinity mask or a contradiction forbids what
    is asked.
    """
    room = _room(host)
    memory = MemoryBudget(host.available_bytes, demand)
    _check_numbers(workers, threads, slots, cores)
    best = None
    if cores is not None:
        _check_groups(cores, room)
        memory.check(len(cores), slots or 1)
        placements = _with_threads(room, [tuple(sorted(cpus)) for cpus in cores], threads)
        bound = f"{counted(len(placements), 'worker')} on the CPUs asked for."
    elif workers is not None:
        memory.check(workers, slots or 1)
        placements = _shared(room, workers, threads)
        bound = f"{counted(workers, 'worker')}, as asked."
    else:
        memory.check(1, slots or 1)
        best = next((one for one in measured if _fits(one, room, memory, threads, slots)), None)
        if best is not None:
            threads, slots = best.threads, best.slots
        wanted, held = _wanted(room, threads or 1), memory.workers(slots or 1)
        placements = _shared(room, min(wanted, held), threads)
        bound = f"Memory holds {counted(held, 'worker')}: {memory}."
        if wanted <= held:
            limit = "cores" if room.quota is None else "quota"
            bound = f"{counted(wanted, 'worker')} of {counted(threads or 1, 'thread')}: as many as fit the {limit}."
    if best is None and slots is None:
        alike = (one for one in measured if one.threads == placements[0].threads)
        best = next((one for one in alike if memory.slots(len(placements)) >= one.slots), None)
    given = _slots(len(placements), memory, slots, best)
    remarks = [_slots_remark(given, memory, slots, best), *_remarks(placements, room, host)]
    if threads is None:
        remarks += _left_over(placements, room)
    return Layout(placements, given, (bound, *remarks))


def usable_cores(host: Host) -> int:
    """Count the physical cores that the affinity mask touches."""
    return len(_room(host).cores)


def binding_quota(host: Host) -> float | None:
    """CPUs of the quota, where it leaves less than the cores; else None."""
    return _room(host).quota


def whole_node_threads(host: Host) -> int:
    """Most threads of a worker that has a core for each of them on one NUMA node."""
    return max(len(node) for node in _by_node(_room(host).cores))


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


def _fits(one: Measurement, room: _Room, memory: MemoryBudget, threads: int | None, slots: int | None) -> bool:
    """Whether a measured shape is what was asked for, and memory holds as many such workers as the cores do."""
    asked = threads in (None, one.threads) and slots in (None, one.slots)
    return asked and _wanted(room, one.threads) <= memory.workers(one.slots)


def _slots(workers: int, memory: MemoryBudget, asked: int | None, best: Measurement | None) -> int:
    if asked is not None:
        return asked
    return best.slots if best is not None else min(memory.demand.slots, memory.slots(workers))


def _slots_remark(given: int, memory: MemoryBudget, asked: int | None, best: Measurement | None) -> str:
    """Say how many slots each worker has, and why."""
    has = f"{counted(given, 'slot')} a worker"
    if best is not None:
        return f"{has}, by this host's calibration: {best}."
    if not memory.demand.slot:
        return f"{has}: it speaks one utterance at a time."
    if asked is not None:
        return f"{has}, as asked."
    if given < memory.demand.slots:
        return f"Memory holds {has} of the {memory.demand.slots} that the engine would have: {memory}."
    return f"{has}, the engine's default: `chorus calibrate` measures which shape is the fastest here."


def _check_numbers(
    workers: int | None, threads: int | None, slots: int | None, cores: tuple[tuple[int, ...], ...] | None
) -> None:
    for name, number in (("workers", workers), ("threads", threads), ("slots", slots)):
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
            f"CPUs {format_cpus(strays)} are outside the affinity mask: choose among {format_cpus(allowed)}"
        )
    if repeated := sorted(cpu for cpu, times in counts.items() if times > 1):
        raise LayoutError(f"CPUs {format_cpus(repeated)} are listed more than once: give each to one worker")


def _wanted(room: _Room, threads: int) -> int:
    """Count the workers of so many threads that the cores hold, at least one, whatever memory says."""
    whole = sum(len(node) // threads for node in _by_node(room.pool(threads)))
    return max(1, min(whole, room.threads // threads))


def _shared(room: _Room, workers: int, threads: int | None) -> tuple[WorkerPlacement, ...]:
    """Let so many workers share the cores evenly."""
    groups = _split(room.pool(workers * (threads or 1)), workers)
    # A quota bounds time, not place: each worker then roams over its whole share of the cores. Were it pinned
    # to one, the containers of a host would all meet on the first cores and leave the others idle.
    pinned = threads if room.quota is None else None
    return _with_threads(room, [_cpus(group[:pinned]) for group in groups], threads)


def _with_threads(room: _Room, places: Sequence[tuple[int, ...]], threads: int | None) -> tuple[WorkerPlacement, ...]:
    """Give the workers on these CPUs so many threads each, or the least of their shares."""
    each = threads or min(_shares(room, places))
    return tuple(WorkerPlacement(cpus, each) for cpus in places)


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


def _remarks(placements: Sequence[WorkerPlacement], room: _Room, host: Host) -> Iterator[str]:
    """Describe the finished layout, so that every sentence is true however it came about."""
    if len(room.cores) < len(host.cores):
        yield f"The affinity mask leaves {len(room.cores)} of {counted(len(host.cores), 'physical core')}."
    total = sum(worker.threads for worker in placements)
    covered = len(room.touched(cpu for worker in placements for cpu in worker.cpus))
    yield _balancer_remark(room, total, free=len(room.cores) - covered)
    if total > covered or any(worker.threads > len(room.touched(worker.cpus)) for worker in placements):
        yield (
            f"Over-committed: {counted(total, 'worker thread')} on {counted(covered, 'physical core')} "
            "slow each other down."
        )
    homes = [{core.node for core in room.touched(worker.cpus)} for worker in placements]
    if idle := len({core.node for core in room.cores}.difference(*homes)):
        yield f"{counted(idle, 'NUMA node')} without a worker: a worker does not span nodes unless told to."
    if spread := sum(len(home) > 1 for home in homes):
        yield f"{counted(spread, 'worker')} across NUMA nodes, as asked: their memory is partly far away."


def _left_over(placements: Sequence[WorkerPlacement], room: _Room) -> Iterator[str]:
    """Say what the workers would have room for, were it not for equal numbers of threads."""
    threads = sum(worker.threads for worker in placements)
    if spare := sum(_shares(room, [worker.cpus for worker in placements])) - threads:
        what = "core" if room.quota is None else "CPU"
        yield f"{counted(spare, what)} left over: only workers of equally many threads sound alike, seed for seed."


def _balancer_remark(room: _Room, threads: int, free: int) -> str:
    if room.quota is not None and threads > room.quota - _QUOTA_FOR_BALANCER:
        return (
            f"{counted(threads, 'worker thread')} can use up the quota of {room.quota:g} CPUs and have the "
            f"balancer throttled too: a quota of {threads + _QUOTA_FOR_BALANCER:g} would prevent it."
        )
    if room.quota is not None:
        return (
            f"The quota of {room.quota:g} CPUs holds {counted(threads, 'worker thread')} and leaves the rest "
            "to the balancer, which is never throttled by them."
        )
    if room.siblings:
        return "The balancer runs on the hyper-threads beside the workers; no core is given up for it."
    if free:
        return f"{counted(free, 'core')} left free for the balancer."
    return "The balancer shares the workers' cores and is served first: workers run at a lower priority."
