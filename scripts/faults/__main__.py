"""Chorus under fire: clients ask without a pause while workers are killed and stopped, disks fill and clients hang up.

Afterwards every answer must have been the right audio, to the last sample, and nothing may be left over.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.table import Table

from balancer.host.topology import detect_topology
from scripts.faults.clients import Clients, Seen, speak
from scripts.faults.disk import small_disk
from scripts.faults.faults import Troubles
from scripts.faults.invariants import Balance, Finding, findings, take
from scripts.faults.texts import Line, digest, lines
from scripts.support.console import fail, report_progress, run_command
from scripts.support.recogniser import word_errors
from scripts.support.servers import Server, ServerError, interrupt_on_signals, start_chorus

ENGINE = "hibari"
LONGEST_HEARD = 150
"""Characters of the longest text that the recogniser listens to: it takes about as long as the speech."""
MISHEARD = 0.2
"""Most words of a sample, as a share, that the recogniser may get wrong; of the wrong text it would get nearly all."""

PEACEFUL_ROUNDS = 3
"""How often all texts are spoken before the trouble begins."""

COUNTERS = (
    "chorus_retries_total",
    "chorus_workers_lost_total",
    "chorus_cancellations_total",
    "chorus_wasted_seconds_total",
)
"""Of the server's metrics, what it says of itself."""


@dataclass(frozen=True)
class Plan:
    """What is done, and for how long. Times in seconds."""

    duration: float
    least: int
    """Requests, for which it goes on for up to that long again."""
    requests: int
    """At most."""
    clients: int
    workers: int
    texts: int
    hang_ups: float
    pause: tuple[float, float]
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    seen: Seen
    troubles: dict[str, int]
    left_out: str | None
    """Why the disk was not filled, if it was not."""
    metrics: dict[str, float]
    findings: list[Finding]
    misheard: float
    """Share of words."""
    heard: int
    """Answers that the recogniser listened to."""

    @property
    def right(self) -> bool:
        """Whether all was as it must be."""
        return not self.seen.lost and all(finding.right for finding in self.findings) and self.misheard <= MISHEARD


def main(
    *,
    duration: Annotated[float, typer.Option(min=1, help="Seconds under fire.")] = 180,
    least: Annotated[
        int, typer.Option(min=0, help="Go on until so many requests were sent, for at most twice the duration.")
    ] = 1000,
    requests: Annotated[int, typer.Option(min=1, help="Stop sending after so many.")] = 10_000,
    clients: Annotated[int | None, typer.Option(min=1, help="Left out: three a worker.")] = None,
    workers: Annotated[int | None, typer.Option(min=2, help="Left out: one a physical core, two at least.")] = None,
    texts: Annotated[int, typer.Option(min=1, help="Different texts.")] = 60,
    hang_ups: Annotated[float, typer.Option(min=0, max=1, help="Share of requests whose clients hang up.")] = 0.1,
    pause: Annotated[str, typer.Option(help="Least and most seconds between two troubles.")] = "3-6",
    seed: Annotated[int, typer.Option(min=0, help="Settles texts, troubles and hang-ups.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write everything to this file.")] = None,
) -> None:
    """Start a server of its own, make trouble, and tell what came of it. Exit code 1: not all was as it must be."""
    interrupt_on_signals()
    chosen = workers or max(2, len(detect_topology().cores))
    plan = Plan(duration, least, requests, clients or 3 * chosen, chosen, texts, hang_ups, _pause(pause), seed)
    try:
        outcome = run(plan)
    except ServerError as error:
        fail("chaos", error)
    _print(outcome)
    if json_file is not None:
        json_file.write_text(json.dumps(_as_json(plan, outcome), indent=2), encoding="utf-8")
    if not outcome.right:
        raise typer.Exit(1)


def run(plan: Plan) -> Outcome:
    """Carry it out. Raises ServerError where the server does not start, or ends."""
    with tempfile.TemporaryDirectory(prefix="chorus-chaos-") as name, small_disk(Path(name) / "run") as left_out:
        folder, run_dir = Path(name), Path(name) / "run"
        report_progress(f"starting {plan.workers} workers")
        settings = {"run_dir": run_dir}
        with start_chorus("chorus", engine=ENGINE, workers=plan.workers, folder=folder, settings=settings) as server:
            report_progress(f"speaking {plan.texts} texts in peace")
            expected = asyncio.run(_in_peace(server, plan))
            before = take(server, run_dir)
            report_progress(f"{plan.clients} clients and trouble for {plan.duration:g} s")
            clients = Clients(server.url, expected, requests=plan.requests, hang_ups=plan.hang_ups, seed=plan.seed)
            troubles = Troubles(server, run_dir, pause=plan.pause, fill=left_out is None, seed=plan.seed)
            asyncio.run(_under_fire(clients, troubles, plan))
            return _outcome(server, run_dir, plan, clients.seen, dict(troubles.made), left_out, before)


async def _in_peace(server: Server, plan: Plan) -> list[Line]:
    """Every text with its audio's digest. Raises ServerError where audio is not the same each time."""
    async with httpx.AsyncClient(base_url=server.url, timeout=None, trust_env=False) as http:
        expected = [
            replace(line, digest=digest((await speak(http, line)).raise_for_status().content))
            for line in lines(plan.texts, plan.seed)
        ]
    # Once more from all clients: what is the server's memory then, is its memory without trouble.
    again = Clients(server.url, expected, requests=PEACEFUL_ROUNDS * plan.texts, hang_ups=plan.hang_ups, seed=plan.seed)
    await again.run(plan.clients)
    if again.seen.lost:
        raise server.failure(f"in peace, these were lost: {dict(again.seen.lost)}")
    return expected


async def _under_fire(clients: Clients, troubles: Troubles, plan: Plan) -> None:
    fire = asyncio.create_task(troubles.run())
    asking = asyncio.create_task(clients.run(plan.clients))
    await asyncio.wait([fire, asking], timeout=plan.duration, return_when=asyncio.FIRST_COMPLETED)
    enough = asyncio.create_task(clients.sent(plan.least))
    await asyncio.wait([fire, asking, enough], timeout=plan.duration, return_when=asyncio.FIRST_COMPLETED)
    enough.cancel()
    clients.stop()
    await asking
    fire.cancel()
    with suppress(asyncio.CancelledError):
        await fire


def _outcome(
    server: Server,
    run_dir: Path,
    plan: Plan,
    seen: Seen,
    troubles: dict[str, int],
    left_out: str | None,
    before: Balance,
) -> Outcome:
    report_progress("waiting until all is quiet")
    found = findings(server, before, workers=plan.workers, run_dir=run_dir)
    report_progress("listening to a sample")
    short = [(line, audio) for line, audio in seen.kept if len(line.text) <= LONGEST_HEARD]
    counts = [word_errors(line.text, audio) for line, audio in short]
    words = sum(count.words for count in counts)
    return Outcome(
        seen=seen,
        troubles=troubles,
        left_out=left_out,
        metrics=_metrics(server),
        findings=found,
        misheard=sum(count.errors for count in counts) / words if words else 1.0,
        heard=len(short),
    )


def _metrics(server: Server) -> dict[str, float]:
    """The server's own counts of what it made good."""
    totals = dict.fromkeys(COUNTERS, 0.0)
    for line in httpx.get(f"{server.url}/metrics", trust_env=False).text.splitlines():
        name = line.partition(" ")[0].partition("{")[0]
        if name in totals:
            totals[name] += float(line.rpartition(" ")[2])
    return totals


def _print(outcome: Outcome) -> None:
    seen = outcome.seen
    table = Table("", "", title="Chorus under fire", title_justify="left", show_header=False)
    for trouble, times in sorted(outcome.troubles.items()):
        table.add_row(trouble, str(times))
    if outcome.left_out:
        table.add_row("the disk was not filled", outcome.left_out)
    table.add_section()
    table.add_row("requests", str(seen.requests))
    table.add_row("answered with the right audio", str(seen.right))
    table.add_row("given up by their clients", str(seen.hung_up))
    table.add_row("lost", str(sum(seen.lost.values())), style="red" if seen.lost else None)
    for what, times in seen.lost.most_common():
        table.add_row(f"  {what}", str(times), style="red")
    if seen.latencies:
        table.add_row("latency: median, longest", f"{median(seen.latencies):.2f} s, {max(seen.latencies):.2f} s")
    wrong = outcome.misheard > MISHEARD
    table.add_row(
        "words that the recogniser heard otherwise",
        f"{outcome.misheard:.0%} in {outcome.heard} answers",
        style="red" if wrong else None,
    )
    table.add_section()
    for name, total in outcome.metrics.items():
        table.add_row(name, f"{total:g}")
    table.add_section()
    for finding in outcome.findings:
        table.add_row(finding.what, finding.value, style=None if finding.right else "red")
    Console().print(table)


def _as_json(plan: Plan, outcome: Outcome) -> dict[str, object]:
    seen = outcome.seen
    return {
        "plan": asdict(plan),
        "right": outcome.right,
        "requests": seen.requests,
        "answered": seen.right,
        "hung_up": seen.hung_up,
        "lost": dict(seen.lost),
        "troubles": outcome.troubles,
        "left_out": outcome.left_out,
        "metrics": outcome.metrics,
        "findings": [asdict(finding) for finding in outcome.findings],
        "misheard": outcome.misheard,
        "heard": outcome.heard,
    }


def _pause(text: str) -> tuple[float, float]:
    parts: Sequence[str] = text.split("-")
    try:
        least, most = map(float, parts)
    except ValueError:
        least, most = 1.0, 0.0
    if not 0 <= least <= most:
        raise typer.BadParameter("--pause must be two numbers of seconds, such as 3-6")
    return least, most


if __name__ == "__main__":
    run_command(main, "scripts/chaos")
