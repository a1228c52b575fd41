"""The table of the outcomes, the list of what did not hold, and the JSON file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from scripts.attacks.attack import Outcome
from scripts.support.markdown import mib, milliseconds, plural

WIDTH = 120


def print_report(outcomes: Sequence[Outcome]) -> None:
    """Print what was tried, what it cost others, and whether it held; then the checks that do not hold."""
    console = Console(width=WIDTH)
    console.print(_table(outcomes))
    for outcome in outcomes:
        if not outcome.held:
            console.print(f"\n{outcome.name}: {outcome.title}", style="bold", highlight=False, markup=False)
        for check in outcome.checks:
            if not check.holds:
                console.print(f"  {check.name}: {check.value}", highlight=False, markup=False)


def _table(outcomes: Sequence[Outcome]) -> Table:
    held = sum(outcome.held for outcome in outcomes)
    headings = ("attack", "others' p99: before", "during", "failed", "memory", "descriptors", "seconds", "")
    table = Table(*headings, title=f"{held} of {plural(len(outcomes), 'attack')} held", title_justify="left")
    for outcome in outcomes:
        table.add_row(
            outcome.name,
            milliseconds(outcome.calm_p99),
            milliseconds(outcome.attacked_p99),
            str(outcome.failures),
            mib(outcome.peak_memory),
            str(outcome.peak_descriptors),
            f"{outcome.seconds:.0f}",
            "held" if outcome.held else "NOT HELD",
            style=None if outcome.held else "red",
        )
    return table


def as_json(outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    """The outcomes with all of their checks."""
    return [asdict(outcome) | {"held": outcome.held} for outcome in outcomes]
