"""One condition that a command checks on a server, and whether it holds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One condition and whether it holds."""

    name: str
    value: str
    holds: bool
