"""What memory the processes of a side take, from Linux's /proc; all sizes in bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from scripts.support.servers import Server

NOTABLE = 8 * 2**20
"""Resident bytes below which a process is none that anyone would count, such as a pipe's `cat`."""

_WITHOUT_MODEL = ("balancer", "supervisord")
_INDEX = re.compile(r"--index (\d+)")


@dataclass(frozen=True)
class Memory:
    """One process."""

    process: str
    """Its part: server, worker 0, balancer, …"""
    private: int
    """Its own alone (RssAnon)."""
    private_peak: int
    """The most that was seen while it worked."""
    shared: int
    """Of the resident memory, what is mapped (RssFile, RssShmem): processes that map the same share one copy."""
    resident: int
    resident_peak: int
    """The most since its start (VmHWM)."""


def total(memories: Sequence[Memory]) -> tuple[int, int]:
    """Private memory of all processes, and what they take in all: what they map is the same in each."""
    private = sum(memory.private for memory in memories)
    return private, private + max(memory.shared for memory in memories)


class Watch:
    """Keeps the most private memory that each process of a side was seen with."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._peaks: dict[psutil.Process, int] = {}

    def look(self) -> None:
        """Look once."""
        for process in self._server.processes():
            with suppress(OSError, KeyError):  # it may just have ended
                private = _kilobytes(_proc(process) / "status")["RssAnon"] * 1024
                self._peaks[process] = max(private, self._peaks.get(process, 0))

    def take(self) -> list[Memory]:
        """Every process of any size as it is now, those with models first."""
        self.look()
        found = []
        for process in self._server.processes():
            with suppress(OSError, KeyError, psutil.NoSuchProcess):
                found.append(self._memory(process))
        found.sort(key=lambda memory: (memory.process in _WITHOUT_MODEL, memory.process))
        return [memory for memory in found if memory.resident >= NOTABLE]

    def _memory(self, process: psutil.Process) -> Memory:
        status = _kilobytes(_proc(process) / "status")
        return Memory(
            process=_part(process),
            private=status["RssAnon"] * 1024,
            private_peak=self._peaks[process],
            shared=(status["RssFile"] + status["RssShmem"]) * 1024,
            resident=status["VmRSS"] * 1024,
            resident_peak=status["VmHWM"] * 1024,
        )


def _proc(process: psutil.Process) -> Path:
    return Path("/proc") / str(process.pid)


def _kilobytes(file: Path) -> dict[str, int]:
    """The lines of a file in /proc that have the form `name: number kB`."""
    return {name: int(number) for name, number in re.findall(r"^(\w+):\s+(\d+) kB$", file.read_text(), re.MULTILINE)}


def _part(process: psutil.Process) -> str:
    command = " ".join(process.cmdline())
    if "-m worker " in command and (index := _INDEX.search(command)):
        return f"worker {index[1]}"
    for part, mark in (("balancer", "-m balancer"), ("supervisord", "supervisord"), ("server", "locked_server.py")):
        if mark in command:
            return part
    return process.name()
