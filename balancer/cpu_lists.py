"""Reads and writes CPU numbers as text, such as `0-3,8`; workers are separated by semicolons; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


class LayoutError(ValueError):
    """The requested layout is impossible or malformed; the message says why and what to do."""


def parse_cores(text: str) -> tuple[tuple[int, ...], ...]:
    """Returns the CPU numbers of each worker in text like `0-1,16;2-3,17`. Raises LayoutError on other text."""
    return tuple(parse_cpus(group) for group in text.split(";"))


def format_cores(groups: Iterable[Sequence[int]]) -> str:
    """Returns the text from which `parse_cores` makes the same groups."""
    return ";".join(format_cpus(group) for group in groups)


def parse_cpus(text: str) -> tuple[int, ...]:
    """Returns the CPU numbers in text like `0-3,8`, as Linux writes them. Raises LayoutError on other text."""
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


def format_cpus(cpus: Sequence[int]) -> str:
    """Returns CPU numbers as Linux writes them, consecutive ones as ranges."""
    runs: list[list[int]] = []
    for cpu in cpus:
        if runs and cpu == runs[-1][-1] + 1:
            runs[-1].append(cpu)
        else:
            runs.append([cpu])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
