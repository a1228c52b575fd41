"""Detects what this process may use of the machine: physical cores, affinity mask, cgroup quota and memory.

Reads Linux's /proc and /sys. A file that is missing or unreadable there (another system, a sandbox) counts as "no
limit"; the cores are then guessed from psutil.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from pathlib import Path

import psutil

from balancer.cpu_lists import LayoutError, parse_cpus
from balancer.host.cpu_budget import Core, Host


def detect_topology(
    root: Path = Path("/"), *, allowed: Set[int] | None = None, available_bytes: int | None = None
) -> Host:
    """Returns the host whose /proc and /sys are under `root`.

    `allowed` (CPU numbers of the affinity mask) and `available_bytes` (free memory of the machine, before the limits of
    cgroups) are those of this process by default.
    """
    mask = frozenset(_affinity() if allowed is None else allowed)
    available = psutil.virtual_memory().available if available_bytes is None else available_bytes
    groups = list(_cgroups(root))
    return Host(
        cores=_cores(root) or _guessed_cores(mask),
        allowed=mask,
        quota=min((quota for group in groups if (quota := _quota(group)) is not None), default=None),
        available_bytes=min([available, *(free for group in groups if (free := _free(group)) is not None)]),
    )


def _affinity() -> Set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


# Topology


def _cores(root: Path) -> tuple[Core, ...]:
    """The physical cores that /sys describes, if any. CPUs that are offline have no topology."""
    nodes = _nodes(root)
    cores: list[Core] = []
    seen: set[int] = set()
    for cpu in _numbered(root / "sys/devices/system/cpu", "cpu"):
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        # thread_siblings_list is the name before Linux 5.3.
        siblings = _cpu_list(topology / "core_cpus_list") or _cpu_list(topology / "thread_siblings_list")
        if cpu in siblings and seen.isdisjoint(siblings):
            cores.append(Core(siblings, nodes.get(cpu, _number(topology / "physical_package_id") or 0)))
            seen.update(siblings)
    return tuple(cores)


def _nodes(root: Path) -> dict[int, int]:
    """The NUMA node of each CPU. Empty on a kernel without NUMA, where the socket takes the place of the node."""
    folder = root / "sys/devices/system/node"
    return {cpu: node for node in _numbered(folder, "node") for cpu in _cpu_list(folder / f"node{node}/cpulist")}


def _guessed_cores(mask: frozenset[int]) -> tuple[Core, ...]:
    """One node with as many cores as psutil counts, on the assumption that second hyper-threads are numbered last."""
    cpus = sorted(mask.union(range(psutil.cpu_count() or 1)))
    physical = min(psutil.cpu_count(logical=False) or len(cpus), len(cpus))
    return tuple(Core(tuple(cpus[first::physical]), node=0) for first in range(physical))


# Control groups


def _cgroups(root: Path) -> Iterator[Path]:
    """The cgroups of this process, of version 1 and 2, and all their ancestors: each may set a limit.

    Inside a container the path may be the host's, which does not exist here; the container's own cgroup is then the
    root of the mount, the last of the ancestors.
    """
    mounts = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        names = {controllers, *controllers.split(",")} if controllers else {"", "unified"}
        parts = [part for part in path.split("/") if part not in {"", ".."}]
        for name in sorted(names):
            for depth in range(len(parts), -1, -1):
                yield mounts.joinpath(name, *parts[:depth])


def _quota(group: Path) -> float | None:
    """The CPUs that the cgroup may use at once; None without a limit."""
    text = _read(group / "cpu.max") or " ".join(
        _read(group / name) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    )
    match text.split():
        case [quota, period] if quota.isdecimal() and period.isdecimal() and int(period) > 0:
            return int(quota) / int(period)
    return None


def _free(group: Path) -> int | None:
    """The bytes that the cgroup may still allocate; None without a limit."""
    limit = _number(group / "memory.max", group / "memory.limit_in_bytes")
    if limit is None:
        return None
    used = _number(group / "memory.current", group / "memory.usage_in_bytes") or 0
    return max(0, limit - max(0, used - _page_cache(group)))


def _page_cache(group: Path) -> int:
    """The bytes of cached files, such as weights: they count as used, but are released on demand."""
    pairs = (line.split() for line in _read(group / "memory.stat").splitlines())
    stat = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}
    # Version 1 includes descendants in its totals only; version 2 includes them and has no totals.
    return sum(stat.get(f"total_{name}", stat.get(name, 0)) for name in ("active_file", "inactive_file"))


# Files


def _numbered(folder: Path, prefix: str) -> list[int]:
    """The N of every entry `prefix`N in the folder, ascending."""
    numbers = (entry.name.removeprefix(prefix) for entry in folder.glob(f"{prefix}[0-9]*"))
    return sorted(int(number) for number in numbers if number.isdecimal())


def _cpu_list(path: Path) -> tuple[int, ...]:
    try:
        return parse_cpus(_read(path))
    except LayoutError:
        return ()


def _number(*paths: Path) -> int | None:
    """The number in the first of the files that contains one; `max` and `-1` (no limit) are not numbers."""
    return next((int(text) for path in paths if (text := _read(path)).isdecimal()), None)


def _read(path: Path) -> str:
    """The text of the file; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
