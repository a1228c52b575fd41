"""Memory of the processes of a server, from Linux's /proc. All sizes are in bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from scripts.support.servers import Server

MIN_RESIDENT_BYTES = 8 * 2**20
"""Processes with less resident memory, such as the `cat` of a pipe, are left out."""

_WITHOUT_MODEL = ("balancer", "supervisord")
_INDEX = re.compile(r"--index (\d+)")


@dataclass(frozen=True)
class ProcessMemory:
    """Memory of one process."""

    process: str
    """Its role: server, worker 0, balancer, …"""
    private: int
    """Memory of this process alone (RssAnon)."""
    private_peak: int
    """The largest `private` that was sampled."""
    shared: int
    """Resident memory mapped from files (RssFile, RssShmem): processes that map the same files share one copy."""
    resident: int
    resident_peak: int
    """The largest resident memory since the start of the process (VmHWM)."""


def total_memory(memories: Sequence[ProcessMemory]) -> tuple[int, int]:
    """Private memory of all processes, and the same with one copy of what they share."""
    private = sum(memory.private for memory in memories)
    return private, private + max(memory.shared for memory in memories)


def resident_memory(process: psutil.Process) -> tuple[int, int]:
    """Resident memory of a process, and the largest since its start."""
    status = _kilobytes(_proc(process) / "status")
    return status["VmRSS"] * 1024, status["VmHWM"] * 1024


class MemoryWatch:
    """Samples the processes of a server and keeps the peak of each one's private memory."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._peaks: dict[psutil.Process, int] = {}

    def sample(self) -> None:
        """Sample once."""
        for process in self._server.processes():
            with suppress(OSError, KeyError):  # it may just have ended
                private = _kilobytes(_proc(process) / "status")["RssAnon"] * 1024
                self._peaks[process] = max(private, self._peaks.get(process, 0))

    def measure(self) -> list[ProcessMemory]:
        """The memory of every process as it is now, processes with models first."""
        self.sample()
        memories = []
        for process in self._server.processes():
            with suppress(OSError, KeyError, psutil.NoSuchProcess):
                memories.append(self._memory(process))
        memories.sort(key=lambda memory: (memory.process in _WITHOUT_MODEL, memory.process))
        return [memory for memory in memories if memory.resident >= MIN_RESIDENT_BYTES]

    def _memory(self, process: psutil.Process) -> ProcessMemory:
        status = _kilobytes(_proc(process) / "status")
        return ProcessMemory(
            process=_role(process),
            private=status["RssAnon"] * 1024,
            private_peak=self._peaks[process],
            shared=(status["RssFile"] + status["RssShmem"]) * 1024,
            resident=status["VmRSS"] * 1024,
            resident_peak=status["VmHWM"] * 1024,
        )


def _proc(process: psutil.Process) -> Path:
    return Path("/proc") / str(process.pid)


def _kilobytes(file: Path) -> dict[str, int]:
    """The lines `name: number kB` of a file in /proc."""
    return {name: int(number) for name, number in re.findall(r"^(\w+):\s+(\d+) kB$", file.read_text(), re.MULTILINE)}


def _role(process: psutil.Process) -> str:
    command = " ".join(process.cmdline())
    if "-m worker " in command and (index := _INDEX.search(command)):
        return f"worker {index[1]}"
    for role, mark in (("balancer", "-m balancer"), ("supervisord", "supervisord"), ("server", "locked_server")):
        if mark in command:
            return role
    return process.name()
