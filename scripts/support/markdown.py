"""Tables and numbers of the reports, and the line that describes the machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from statistics import median

import psutil

from worker.precision import detect_processor


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(row)} |" for row in (heading, *rows)]
    return "\n".join([lines[0], "|---" * len(heading) + "|", *lines[1:]])


def mib(size: float) -> str:
    """A number of bytes in MiB, such as `1,024 MiB`."""
    return f"{size / 2**20:,.0f} MiB"


def milliseconds(seconds: float | None) -> str:
    """A duration such as `250 ms`; `none` if there is none."""
    return "none" if seconds is None else f"{seconds * 1000:.0f} ms"


def median_text(values: Sequence[float], digits: int, unit: str = "") -> str:
    """The median and, if there are several values, all of them: `2.00 s (1.00, 3.00)`."""
    listed = f" ({', '.join(f'{value:.{digits}f}' for value in values)})" if len(values) > 1 else ""
    return f"{median(values):.{digits}f}{unit}{listed}"


def plural(number: int, noun: str) -> str:
    """A number with its noun, such as `1 text` or `2 texts`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def machine(*packages: str) -> str:
    """One line about the processor, cores, memory, Python and the versions of these packages."""
    memory = psutil.virtual_memory().total / 2**30
    cores = f"{psutil.cpu_count(logical=False)} cores, {len(os.sched_getaffinity(0))} of {os.cpu_count()} CPUs allowed"
    versions = "".join(f", {package} {version(package)}" for package in packages)
    return f"{detect_processor()}; {cores}, {memory:.0f} GiB; Python {platform.python_version()}{versions}"
