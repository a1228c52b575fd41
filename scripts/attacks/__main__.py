"""The attack test: a server of its own is attacked, and another caller should not notice.

Afterwards a table says what was tried, what it cost others, and whether it held.
"""

from __future__ import annotations

import json
import resource
from typing import Annotated

import typer

from scripts.attacks.catalogue import ATTACKS
from scripts.attacks.report import as_json, print_report
from scripts.attacks.runner import run_attacks
from scripts.support.console import JsonOption, report_progress, run_command
from scripts.support.servers import interrupt_on_signals

OWN_DESCRIPTORS = 8192
"""An attacker holds more connections than the usual limit allows."""


def main(
    *,
    only: Annotated[
        list[str] | None, typer.Option(help="Run this attack, or all of this kind; may be repeated.")
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="List the attacks, and run none.")] = False,
    duration: Annotated[
        float, typer.Option(min=1, max=300, help="Seconds of attacks that could go on for as long as they like.")
    ] = 6,
    json_file: JsonOption = None,
) -> None:
    """Attack a server, and check that one caller can slow only itself.

    Exit code: 0 all held, 1 something did not hold, 2 wrong usage.
    """
    interrupt_on_signals()
    names = only or list(ATTACKS)
    chosen = [attack for kind, attacks in ATTACKS.items() for attack in attacks if {kind, attack.name} & set(names)]
    known = ATTACKS.keys() | {attack.name for attacks in ATTACKS.values() for attack in attacks}
    if unknown := set(names) - known:
        raise typer.BadParameter(f"there is no attack {', '.join(sorted(unknown))}; see --list")
    if listing:
        for kind, attacks in ATTACKS.items():
            for attack in attacks:
                if attack in chosen:
                    print(f"{kind:12} {attack.name:24} {attack.title}")
        return
    _raise_descriptor_limit()
    outcomes = []
    try:
        for outcome in run_attacks(chosen, duration=duration):
            outcomes.append(outcome)
            report_progress("  held" if outcome.held else "  NOT HELD")
    finally:
        print_report(outcomes)
        if json_file is not None:
            json_file.write_text(json.dumps(as_json(outcomes), indent=2), encoding="utf-8")
    if not all(outcome.held for outcome in outcomes):
        raise typer.Exit(1)


def _raise_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = OWN_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(OWN_DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


if __name__ == "__main__":
    run_command(main, "scripts/attack")
