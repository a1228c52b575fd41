"""Numbers as an operator reads them."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """A number with its noun in the singular or plural: `1 worker`, `2 workers`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def gibibytes(count: int) -> str:
    """Bytes in GiB, to one decimal: `1.5 GiB`."""
    return f"{count / 2**30:.1f} GiB"
