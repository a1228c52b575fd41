"""The physical cores and the CPU time that the workers and the balancer of a host share; pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Self

from balancer.cpu_lists import LayoutError

BALANCER_QUOTA = 0.5
"""CPUs of a cgroup quota that are reserved for the balancer: throttling would stop it together with the workers."""
_MAX_SHARED_CORES = 4
"""With so many cores or fewer, and no hyper-threads, a core for the balancer alone would cost more than it gains."""


@dataclass(frozen=True)
class Core:
    """One physical core."""

    cpus: tuple[int, ...]
    """CPU numbers of its hyper-threads."""
    node: int
    """NUMA node."""


@dataclass(frozen=True)
class Host:
    """The part of the machine that this process may use."""

    cores: tuple[Core, ...]
    """Every physical core, in the affinity mask or not."""
    allowed: frozenset[int]
    """The affinity mask: CPU numbers."""
    quota: float | None
    """CPUs that the cgroup may use at once, averaged over its period; None without a limit."""
    available_bytes: int
    """Memory that can be allocated without swapping, within the cgroup's limit."""


@dataclass(frozen=True)
class CpuBudget:
    """The cores for workers and balancer together, and the quota if it is the tighter limit."""

    cores: tuple[Core, ...]
    """The physical cores in the affinity mask, reduced to their allowed CPUs, node by node."""
    quota: float | None
    """CPUs of the cgroup quota, if one thread on each core could use it up; else None."""

    @classmethod
    def of(cls, host: Host) -> Self:
        """Returns the budget of a host. Raises LayoutError if the affinity mask contains none of its CPUs."""
        reduced = (Core(tuple(sorted(host.allowed.intersection(core.cpus))), core.node) for core in host.cores)
        cores = sorted((core for core in reduced if core.cpus), key=lambda core: (core.node, core.cpus))
        if not cores:
            raise LayoutError("the affinity mask contains none of the host's CPUs: allow at least one")
        binds = host.quota is not None and host.quota <= len(cores) and host.quota < len(cpus_of(cores))
        return cls(tuple(cores), host.quota if binds else None)

    @property
    def has_hyper_threads(self) -> bool:
        """Whether any core has a second CPU, on which the balancer can run beside a worker."""
        return any(len(core.cpus) > 1 for core in self.cores)

    @property
    def max_threads(self) -> int:
        """The highest number of worker threads that leaves the balancer enough CPU time."""
        if self.quota is not None:
            return max(1, math.floor(self.quota - BALANCER_QUOTA))
        if self.has_hyper_threads or len(self.cores) <= _MAX_SHARED_CORES:
            return len(self.cores)
        return len(self.cores) - 1

    @property
    def max_threads_per_worker(self) -> int:
        """The highest number of threads of a worker that has a core for each of them on one NUMA node."""
        return max(len(node) for node in _by_node(self.cores))

    @property
    def nodes(self) -> set[int]:
        """The NUMA nodes of the cores."""
        return {core.node for core in self.cores}

    def max_workers(self, threads: int) -> int:
        """The highest number of workers with `threads` each that the cores hold; 1 at least."""
        whole = sum(len(node) // threads for node in _by_node(self._cores_for(threads)))
        return max(1, min(whole, self.max_threads // threads))

    def split(self, workers: int, threads: int | None) -> tuple[tuple[int, ...], ...]:
        """Divide the cores evenly between the workers: the CPU numbers of each.

        With `threads` each worker gets that many cores at most.
        """
        groups = _split(self._cores_for(workers * (threads or 1)), workers)
        # A quota limits CPU time, not which CPUs are used: a worker may run on all of its share of the cores.
        # If it were pinned to one, the containers of a host would all use the first cores and leave the others idle.
        pinned = threads if self.quota is None else None
        return tuple(cpus_of(group[:pinned]) for group in groups)

    def threads_for(self, groups: Sequence[Sequence[int]]) -> list[int]:
        """The threads that each worker has room for on its group of CPUs: its cores, or its part of the quota."""
        sizes = [len(self.cores_of(cpus)) for cpus in groups]
        if self.quota is None:
            return sizes
        return [min(size, max(1, part)) for size, part in zip(sizes, _even(self.max_threads, len(groups)), strict=True)]

    def cores_of(self, cpus: Iterable[int]) -> list[Core]:
        """The cores that have at least one of these CPUs."""
        wanted = set(cpus)
        return [core for core in self.cores if not wanted.isdisjoint(core.cpus)]

    def _cores_for(self, threads: int) -> tuple[Core, ...]:
        """The cores on which to place workers with `threads` threads in total.

        The core that is left to the balancer is the first, which handles the interrupts by default.
        """
        if self.quota is not None or threads > self.max_threads:
            return self.cores
        return self.cores[len(self.cores) - self.max_threads :]


def cpus_of(cores: Iterable[Core]) -> tuple[int, ...]:
    """The CPU numbers of cores, ascending."""
    return tuple(sorted(cpu for core in cores for cpu in core.cpus))


def _split(cores: Sequence[Core], workers: int) -> list[Sequence[Core]]:
    """Give each worker an even share of one node's cores; if there are fewer cores than workers, one core in turn."""
    if workers > len(cores):
        return [(cores[index % len(cores)],) for index in range(workers)]
    nodes = _by_node(cores)
    counts = [0] * len(nodes)
    for _ in range(workers):
        # Highest averages: the next worker goes to the node on which each worker then has the most cores.
        averages = [len(node) / (count + 1) for node, count in zip(nodes, counts, strict=True)]
        counts[averages.index(max(averages))] += 1
    groups: list[Sequence[Core]] = []
    for node, count in zip(nodes, counts, strict=True):
        rest = iter(node)
        groups += (tuple(islice(rest, size)) for size in _even(len(node), count))
    return groups


def _even(total: int, parts: int) -> list[int]:
    """Divide `total` into `parts` integers that differ by at most one, larger ones first."""
    return [total // parts + (index < total % parts) for index in range(parts)]


def _by_node(cores: Iterable[Core]) -> list[list[Core]]:
    nodes: dict[int, list[Core]] = {}
    for core in cores:
        nodes.setdefault(core.node, []).append(core)
    return list(nodes.values())
