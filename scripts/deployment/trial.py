"""What the trials of deployments have in common."""

from __future__ import annotations

from collections.abc import Callable

from scripts.support.check import Check
from scripts.support.console import report_progress


class Trial:
    """Steps that are taken in turn, and what was seen at each."""

    def __init__(self) -> None:
        self.checks: list[Check] = []

    def _take(self, step: Callable[[], None]) -> None:
        """Take a step, whose docstring tells what is done. Raises CalledProcessError if it cannot be taken."""
        report_progress((step.__doc__ or "").rstrip("."))
        step()

    def _see(self, name: str, value: object, holds: bool) -> None:
        self.checks.append(Check(name, str(value), holds))
