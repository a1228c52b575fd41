"""Chooses how many workers run, on which CPUs, and with how many threads and slots each; pure.

Many small workers are faster than one big one: decoding reads all weights for every token and hardly gains from a
second thread. So each physical core gets a worker of one thread, with the slots that the engine's card names, unless
memory holds only fewer slots or fewer workers. If `chorus calibrate` has measured this host, the fastest measured
configuration that fits into memory takes precedence over that rule.

All workers have the same number of threads: sums of floating-point numbers depend on it, and a seed must give the same
audio on every worker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from balancer.cpu_lists import LayoutError, format_cpus
from balancer.host.calibration import Measurement
from balancer.host.cpu_budget import BALANCER_QUOTA, CpuBudget, Host, cpus_of
from balancer.host.memory_budget import MemoryBudget, WorkerMemory
from balancer.host.wording import counted


@dataclass(frozen=True)
class Layout:
    """The workers to start, in order of their index."""

    workers: tuple[tuple[int, ...], ...]
    """The CPU numbers that each worker may run on, ascending."""
    threads: int
    """Compute threads of each worker's model."""
    slots: int
    """Utterances that each worker synthesizes at once."""
    reasons: tuple[str, ...]
    """What limits the layout, where the balancer runs, and warnings: a sentence each."""


def plan_layout(
    host: Host,
    worker_memory: WorkerMemory,
    *,
    workers: int | None = None,
    threads: int | None = None,
    slots: int | None = None,
    cores: tuple[tuple[int, ...], ...] | None = None,
    measured: Sequence[Measurement] = (),
) -> Layout:
    """Choose the layout for `host`, within what the operator requests; None leaves a choice open.

    `workers` alone divides the cores evenly; `threads` alone starts as many workers of that many cores as fit; `cores`
    names the CPUs of each worker. Without `threads`, every worker has as many as the one with the fewest cores, within
    a quota. So the CPUs of a chosen layout, given as `cores`, result in the same layout again. More threads than cores
    are granted on request, with a warning among the reasons.

    `measured` are the configurations of this host's calibration, best first: what is not requested comes from the first
    that fits, else from the rules.

    Raises LayoutError if memory or the affinity mask does not allow the request, or if it contradicts itself.
    """
    budget = CpuBudget.of(host)
    memory = MemoryBudget(host.available_bytes, worker_memory)
    _check_numbers(workers, threads, slots, cores)
    best = None
    if cores is not None:
        _check_cores(cores, budget)
        memory.check(len(cores), slots or 1)
        groups = tuple(tuple(sorted(cpus)) for cpus in cores)
        limit = f"{counted(len(groups), 'worker')} on the requested CPUs."
    elif workers is not None:
        memory.check(workers, slots or 1)
        groups = budget.split(workers, threads)
        limit = f"{counted(workers, 'worker')}, as requested."
    else:
        memory.check(1, slots or 1)
        best = next((one for one in measured if _fits(one, budget, memory, threads, slots)), None)
        if best is not None:
            threads, slots = best.threads, best.slots
        groups, limit = _as_many_as_fit(budget, memory, threads, slots)
    threads_each = threads or min(budget.threads_for(groups))
    if best is None and slots is None:
        same_threads = (one for one in measured if one.threads == threads_each)
        best = next((one for one in same_threads if memory.max_slots(len(groups)) >= one.slots), None)
    slots_each = _slots(len(groups), memory, slots, best)
    layout = Layout(groups, threads_each, slots_each, (limit, _slots_reason(slots_each, memory, slots, best)))
    reasons = [*layout.reasons, *_cpu_reasons(layout, budget, host)]
    if threads is None:
        reasons += _unused_reasons(layout, budget)
    return replace(layout, reasons=tuple(reasons))


def _as_many_as_fit(
    budget: CpuBudget, memory: MemoryBudget, threads: int | None, slots: int | None
) -> tuple[tuple[tuple[int, ...], ...], str]:
    """The CPUs of each of as many workers as cores and memory allow, and a sentence on which of the two limits them."""
    by_cpu, by_memory = budget.max_workers(threads or 1), memory.max_workers(slots or 1)
    groups = budget.split(min(by_cpu, by_memory), threads)
    if by_memory < by_cpu:
        return groups, f"Memory holds {counted(by_memory, 'worker')}: {memory}."
    allows = "cores allow" if budget.quota is None else "quota allows"
    return groups, f"{counted(by_cpu, 'worker')} of {counted(threads or 1, 'thread')}: as many as the {allows}."


def _fits(one: Measurement, budget: CpuBudget, memory: MemoryBudget, threads: int | None, slots: int | None) -> bool:
    """Whether a measured configuration meets the request, and memory holds as many of its workers as the cores do."""
    meets = threads in (None, one.threads) and slots in (None, one.slots)
    return meets and budget.max_workers(one.threads) <= memory.max_workers(one.slots)


def _slots(workers: int, memory: MemoryBudget, requested: int | None, best: Measurement | None) -> int:
    if requested is not None:
        return requested
    return best.slots if best is not None else min(memory.worker.default_slots, memory.max_slots(workers))


def _check_numbers(
    workers: int | None, threads: int | None, slots: int | None, cores: tuple[tuple[int, ...], ...] | None
) -> None:
    for name, number in (("workers", workers), ("threads", threads), ("slots", slots)):
        if number is not None and number < 1:
            raise LayoutError(f"{name} is {number}: it must be at least 1; leave it out to have it chosen")
    if cores is not None and workers is not None and workers != len(cores):
        raise LayoutError(f"workers is {workers} but cores has CPUs for {len(cores)}: make them agree or leave one out")


def _check_cores(cores: tuple[tuple[int, ...], ...], budget: CpuBudget) -> None:
    if not cores or not all(cores):
        raise LayoutError("cores has a worker without CPUs: name at least one CPU for each")
    allowed = cpus_of(budget.cores)
    counts = Counter(cpu for cpus in cores for cpu in cpus)
    if outside := sorted(set(counts).difference(allowed)):
        raise LayoutError(
            f"CPUs {format_cpus(outside)} are outside the affinity mask: choose among {format_cpus(allowed)}"
        )
    if repeated := sorted(cpu for cpu, times in counts.items() if times > 1):
        raise LayoutError(f"CPUs {format_cpus(repeated)} are listed more than once: give each to one worker")


# Reasons: they describe the finished layout, so that every sentence is true however it came about.


def _slots_reason(slots: int, memory: MemoryBudget, requested: int | None, best: Measurement | None) -> str:
    """Say how many slots each worker has, and why."""
    each = f"{counted(slots, 'slot')} per worker"
    default = memory.worker.default_slots
    if best is not None:
        return f"{each}, from this host's calibration: {best}."
    if not memory.worker.slot_bytes:
        return f"{each}: the engine synthesizes one utterance at a time."
    if requested is not None:
        return f"{each}, as requested."
    if slots < default:
        return f"Memory holds {each} instead of the engine's default, {default}: {memory}."
    return f"{each}, the engine's default: `chorus calibrate` finds the fastest number for this host."


def _cpu_reasons(layout: Layout, budget: CpuBudget, host: Host) -> Iterator[str]:
    if len(budget.cores) < len(host.cores):
        yield f"The affinity mask allows {len(budget.cores)} of {counted(len(host.cores), 'physical core')}."
    threads = layout.threads * len(layout.workers)
    occupied = len(budget.cores_of(cpu for cpus in layout.workers for cpu in cpus))
    yield _balancer_reason(budget, threads, free=len(budget.cores) - occupied)
    if threads > occupied or any(layout.threads > len(budget.cores_of(cpus)) for cpus in layout.workers):
        yield (
            f"Over-committed: {counted(threads, 'worker thread')} on {counted(occupied, 'physical core')} "
            "slow each other down."
        )
    homes = [{core.node for core in budget.cores_of(cpus)} for cpus in layout.workers]
    if idle := len(budget.nodes.difference(*homes)):
        yield f"{counted(idle, 'NUMA node')} without a worker: a worker spans nodes only on request."
    if spread := sum(len(home) > 1 for home in homes):
        yield f"{counted(spread, 'worker')} across NUMA nodes, as requested: part of the memory is remote."


def _unused_reasons(layout: Layout, budget: CpuBudget) -> Iterator[str]:
    """Say which cores only stay unused because all workers have the same number of threads."""
    if unused := sum(budget.threads_for(layout.workers)) - layout.threads * len(layout.workers):
        noun = "core" if budget.quota is None else "CPU"
        yield (
            f"{counted(unused, noun)} unused: all workers have the same number of threads, so that a seed gives the "
            "same audio on each."
        )


def _balancer_reason(budget: CpuBudget, threads: int, free: int) -> str:
    if budget.quota is not None and threads > budget.quota - BALANCER_QUOTA:
        return (
            f"{counted(threads, 'worker thread')} can use up the quota of {budget.quota:g} CPUs, and the balancer is "
            f"then throttled, too: a quota of {threads + BALANCER_QUOTA:g} would prevent it."
        )
    if budget.quota is not None:
        return (
            f"The quota of {budget.quota:g} CPUs covers {counted(threads, 'worker thread')} and leaves the rest to the "
            "balancer, which the workers cannot throttle."
        )
    if budget.has_hyper_threads:
        return "The balancer runs on the workers' second hyper-threads and needs no core of its own."
    if free:
        return f"{counted(free, 'core')} left to the balancer."
    return "The balancer shares the workers' cores and takes precedence: workers run at a lower priority."
