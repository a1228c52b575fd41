"""The fault test: clients send requests while workers are killed and stopped, the disk fills up and clients hang up.

With `--attacks`, hostile clients are there, too. Every answer must have the expected audio, to the last sample, and
afterwards all invariants must hold. With `--streams`, the clients are listeners to streams (see `streams`).
"""

from __future__ import annotations

import asyncio
import json
import tempfile
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
from scripts.faults.attackers import Attackers
from scripts.faults.clients import ClientResults, Clients, synthesize
from scripts.faults.disk import small_disk
from scripts.faults.faults import FaultInjector
from scripts.faults.invariants import (
    ATTACKED_MEMORY_GROWTH,
    MAX_MEMORY_GROWTH,
    ResourceSnapshot,
    check_invariants,
    peak_memory,
    take_snapshot,
)
from scripts.faults.streams import StreamPlan
from scripts.faults.streams import run as run_streams
from scripts.faults.texts import ReferenceUtterance, audio_digest, draw_utterances
from scripts.support.check import Check
from scripts.support.console import JsonOption, fail, report_progress, run_command
from scripts.support.recogniser import word_errors
from scripts.support.servers import Server, ServerError, interrupt_on_signals, start_chorus

ENGINE = "hibari"
MAX_RECOGNISED_CHARACTERS = 150
"""Longer texts are not recognised: recognition takes about as long as the speech."""
MAX_WORD_ERROR_RATE = 0.2
"""Of the sample: in the audio of another text, nearly all words would be wrong."""

WARM_UP_ROUNDS = 3
"""How often all texts are synthesized before the faults begin."""

COUNTERS = (
    "chorus_retries_total",
    "chorus_workers_lost_total",
    "chorus_cancellations_total",
    "chorus_wasted_seconds_total",
)
"""Metrics of the server that are reported."""


@dataclass(frozen=True)
class FaultPlan:
    """The load and the faults. Times are in seconds."""

    duration: float
    """The test takes at least this time, or until `max_requests` were sent."""
    max_duration: float
    """The test ends at this time, even if `min_requests` and `min_faults` are not reached."""
    min_requests: int
    min_faults: int
    """Number of workers that are killed or stopped."""
    max_requests: int
    clients: int
    workers: int
    texts: int
    """Number of different texts."""
    hang_ups: float
    """Share of requests on which the client hangs up."""
    pause: tuple[float, float]
    """Minimum and maximum time between two faults."""
    attacks: bool
    """Whether hostile clients attack the server meanwhile."""
    seed: int


@dataclass(frozen=True)
class FaultReport:
    """The result of a fault test."""

    results: ClientResults
    faults: dict[str, int]
    """Number of injected faults by kind."""
    ready_workers_hit: int
    """Number of faults whose worker was ready."""
    attacks: dict[str, int]
    """What hostile clients tried, by kind."""
    disk_not_filled: str | None
    """The reason why the disk was not filled; None if it was."""
    metrics: dict[str, float]
    """The server's COUNTERS."""
    checks: list[Check]
    word_error_rate: float
    """Of the recognised answers; 1 if there are none."""
    recognised: int
    """Number of answers that the recogniser was given."""

    @property
    def passed(self) -> bool:
        """Whether no request failed, all invariants hold, and the sample was understood."""
        return (
            not self.results.failures
            and all(check.holds for check in self.checks)
            and self.word_error_rate <= MAX_WORD_ERROR_RATE
        )


def main(
    *,
    duration: Annotated[float, typer.Option(min=1, help="Minimum seconds with faults.")] = 180,
    max_duration: Annotated[
        float | None, typer.Option(min=1, help="Maximum seconds with faults. Default: twice the minimum.")
    ] = None,
    min_requests: Annotated[int, typer.Option(min=0, help="Go on until this many requests have ended.")] = 1000,
    min_faults: Annotated[int, typer.Option(min=0, help="Go on until this many workers were killed or stopped.")] = 4,
    max_requests: Annotated[int, typer.Option(min=1, help="Stop after this many requests.")] = 10_000,
    clients: Annotated[int | None, typer.Option(min=1, help="Concurrent clients. Default: three per worker.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=2, help="Workers. Default: one per physical core, at least two.")
    ] = None,
    texts: Annotated[int, typer.Option(min=1, help="Number of different texts.")] = 60,
    hang_ups: Annotated[
        float, typer.Option(min=0, max=1, help="Share of requests on which the client hangs up.")
    ] = 0.1,
    pause: Annotated[str, typer.Option(help="Minimum and maximum seconds between two faults.")] = "3-6",
    attacks: Annotated[
        bool, typer.Option("--attacks", help="Let hostile clients attack the server meanwhile.")
    ] = False,
    streams: Annotated[
        bool, typer.Option("--streams", help="Hear streams instead, while workers are killed; see --listeners.")
    ] = False,
    listeners: Annotated[int, typer.Option(min=1, help="Listeners at once, with --streams.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Seed of texts, faults and hang-ups.")] = 0,
    json_file: JsonOption = None,
) -> None:
    """Start a server, inject faults under load, and check that no request and no resource is lost.

    With --streams, only --duration, --workers, --pause, --listeners, --seed and --json apply.

    Exit code: 0 passed, 1 a request failed or an invariant does not hold, 2 wrong usage.
    """
    interrupt_on_signals()
    worker_count = workers or max(2, len(detect_topology().cores))
    if streams:
        stream_plan = StreamPlan(duration, listeners, worker_count, _parse_pause(pause), seed)
        _hear_streams(stream_plan, json_file)
        return
    plan = FaultPlan(
        duration=duration,
        max_duration=max_duration or 2 * duration,
        min_requests=min_requests,
        min_faults=min_faults,
        max_requests=max_requests,
        clients=clients or 3 * worker_count,
        workers=worker_count,
        texts=texts,
        hang_ups=hang_ups,
        pause=_parse_pause(pause),
        attacks=attacks,
        seed=seed,
    )
    try:
        report = run(plan)
    except ServerError as error:
        fail("chaos", error)
    _print(report)
    if json_file is not None:
        json_file.write_text(json.dumps(_as_json(plan, report), indent=2), encoding="utf-8")
    if not report.passed:
        raise typer.Exit(1)


def run(plan: FaultPlan) -> FaultReport:
    """Run the fault test. Raises ServerError if the server does not start, or ends."""
    with tempfile.TemporaryDirectory(prefix="chorus-chaos-") as name, small_disk(Path(name) / "run") as not_mounted:
        folder, run_dir = Path(name), Path(name) / "run"
        report_progress(f"starting {plan.workers} workers")
        settings = {"run_dir": run_dir}
        with start_chorus("chorus", engine=ENGINE, workers=plan.workers, folder=folder, settings=settings) as server:
            report_progress(f"synthesizing {plan.texts} texts without faults")
            utterances, peak = asyncio.run(_synthesize_references(server, plan))
            before = replace(take_snapshot(server, run_dir), balancer_bytes=peak)
            report_progress(f"{plan.clients} clients and faults for {plan.duration:g} s")
            clients = Clients(
                server.url, utterances, requests=plan.max_requests, hang_ups=plan.hang_ups, seed=plan.seed
            )
            injector = FaultInjector(
                server, clients, run_dir, pause=plan.pause, fill_disk=not_mounted is None, seed=plan.seed
            )
            attackers = Attackers(int(server.url.rpartition(":")[2]))
            asyncio.run(_run_with_faults(clients, injector, attackers, plan))
            return _evaluate(server, run_dir, plan, clients.results, injector, attackers, not_mounted, before)


async def _synthesize_references(server: Server, plan: FaultPlan) -> tuple[list[ReferenceUtterance], int]:
    """All utterances with their digests, and the peak of the balancer's resident memory in bytes.

    Raises ServerError if a text's audio is not always the same.
    """
    async with httpx.AsyncClient(base_url=server.url, timeout=None, trust_env=False) as http:
        utterances = [
            replace(utterance, digest=audio_digest((await synthesize(http, utterance)).raise_for_status().content))
            for utterance in draw_utterances(plan.texts, plan.seed)
        ]
    # Again with all clients, so that the server's memory is at its usual level before the faults begin.
    clients = Clients(
        server.url, utterances, requests=WARM_UP_ROUNDS * plan.texts, hang_ups=plan.hang_ups, seed=plan.seed
    )
    peak = await peak_memory(server, clients.run(plan.clients))
    if clients.results.failures:
        raise server.failure(f"requests failed without any fault: {dict(clients.results.failures)}")
    return utterances, peak


async def _run_with_faults(clients: Clients, injector: FaultInjector, attackers: Attackers, plan: FaultPlan) -> None:
    async def enough() -> None:
        await asyncio.sleep(plan.duration)
        await clients.wait_for_requests(plan.min_requests)
        await injector.wait_for_worker_faults(plan.min_faults)

    attacking = [asyncio.create_task(attackers.run())] if plan.attacks else []
    injecting = asyncio.create_task(injector.run())
    requesting = asyncio.create_task(clients.run(plan.clients))
    waiting = asyncio.create_task(enough())
    await asyncio.wait(
        [injecting, requesting, waiting, *attacking], timeout=plan.max_duration, return_when=asyncio.FIRST_COMPLETED
    )
    waiting.cancel()
    clients.stop()
    await requesting
    for task in (injecting, *attacking):
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _evaluate(
    server: Server,
    run_dir: Path,
    plan: FaultPlan,
    results: ClientResults,
    injector: FaultInjector,
    attackers: Attackers,
    not_mounted: str | None,
    before: ResourceSnapshot,
) -> FaultReport:
    report_progress("waiting until the server is idle")
    growth = ATTACKED_MEMORY_GROWTH if plan.attacks else MAX_MEMORY_GROWTH
    checks = check_invariants(server, before, workers=plan.workers, run_dir=run_dir, memory_growth=growth)
    report_progress("recognising a sample of the answers")
    sample = [
        word_errors(utterance.text, audio)
        for utterance, audio in results.samples
        if len(utterance.text) <= MAX_RECOGNISED_CHARACTERS
    ]
    words = sum(counts.words for counts in sample)
    return FaultReport(
        results=results,
        faults=dict(injector.injected),
        ready_workers_hit=injector.ready_workers_hit,
        attacks=dict(attackers.attacks),
        disk_not_filled=not_mounted,
        metrics=_metrics(server),
        checks=checks,
        word_error_rate=sum(counts.errors for counts in sample) / words if words else 1.0,
        recognised=len(sample),
    )


def _metrics(server: Server) -> dict[str, float]:
    """The values of the COUNTERS, summed over their labels."""
    totals = dict.fromkeys(COUNTERS, 0.0)
    for line in httpx.get(f"{server.url}/metrics", trust_env=False).text.splitlines():
        name = line.partition(" ")[0].partition("{")[0]
        if name in totals:
            totals[name] += float(line.rpartition(" ")[2])
    return totals


def _print(report: FaultReport) -> None:
    results = report.results
    table = Table("", "", title="Fault test", title_justify="left", show_header=False)
    for fault, count in sorted((report.faults | report.attacks).items()):
        table.add_row(fault, str(count))
    if report.disk_not_filled:
        table.add_row("the disk was not filled", report.disk_not_filled)
    table.add_section()
    table.add_row("requests", str(results.requests))
    table.add_row("answers with the expected audio", str(results.correct))
    table.add_row("requests on which the client hung up", str(results.hung_up))
    table.add_row("failures", str(sum(results.failures.values())), style="red" if results.failures else None)
    for kind, count in results.failures.most_common():
        table.add_row(f"  {kind}", str(count), style="red")
    if results.latencies:
        table.add_row("latency: median, maximum", f"{median(results.latencies):.2f} s, {max(results.latencies):.2f} s")
    table.add_row(
        "word error rate of the recogniser",
        f"{report.word_error_rate:.0%} in {report.recognised} answers",
        style="red" if report.word_error_rate > MAX_WORD_ERROR_RATE else None,
    )
    table.add_section()
    for name, total in report.metrics.items():
        table.add_row(name, f"{total:g}")
    table.add_section()
    for check in report.checks:
        table.add_row(check.name, check.value, style=None if check.holds else "red")
    Console().print(table)


def _hear_streams(plan: StreamPlan, json_file: Path | None) -> None:
    """Run the fault test of streams, and print its table."""
    try:
        report = run_streams(plan)
    except ServerError as error:
        fail("chaos", error)
    table = Table("", "", title="Fault test of streams", title_justify="left", show_header=False)
    for check in report.checks:
        table.add_row(check.name, check.value, style=None if check.holds else "red")
    table.add_row("chorus_retries_total", f"{report.retries:g}")
    Console().print(table)
    if json_file is not None:
        content = {"plan": asdict(plan), "passed": report.passed, "checks": [asdict(check) for check in report.checks]}
        json_file.write_text(json.dumps(content, indent=2), encoding="utf-8")
    if not report.passed:
        raise typer.Exit(1)


def _as_json(plan: FaultPlan, report: FaultReport) -> dict[str, object]:
    results = report.results
    return {
        "plan": asdict(plan),
        "passed": report.passed,
        "requests": results.requests,
        "correct": results.correct,
        "hung_up": results.hung_up,
        "failures": dict(results.failures),
        "faults": report.faults,
        "ready_workers_hit": report.ready_workers_hit,
        "attacks": report.attacks,
        "disk_not_filled": report.disk_not_filled,
        "metrics": report.metrics,
        "invariants": [asdict(check) for check in report.checks],
        "word_error_rate": report.word_error_rate,
        "recognised": report.recognised,
    }


def _parse_pause(text: str) -> tuple[float, float]:
    try:
        minimum, maximum = map(float, text.split("-"))
    except ValueError:
        minimum, maximum = 1.0, 0.0
    if not 0 <= minimum <= maximum:
        raise typer.BadParameter("--pause must be two numbers of seconds, such as 3-6")
    return minimum, maximum


if __name__ == "__main__":
    run_command(main, "scripts/chaos")
