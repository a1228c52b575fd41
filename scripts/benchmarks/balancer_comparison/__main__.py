"""Chorus beside HAProxy in front of the same workers, by turns in one run: which texts wait for how long.

HAProxy is set up as a careful operator would: `leastconn`, one utterance a worker at a time, all others in its queue.
What is the same for both: the worker processes (Chorus's own, as `chorus serve` starts them), their engine, texts,
arrival times, voice, number and kind of connections, and raw samples as the answer. Before it answers, Chorus has the
whole of an utterance, as it does for its users; HAProxy passes on what comes as it comes. Latency counts to the last
byte on both sides. HAProxy's client speaks the workers' own contract and checks that an answer is whole, which Chorus
does for its clients. Every text is a new one, so that nothing can have been kept. HAProxy has no health checks, while
Chorus looks at its workers twice a second, also when HAProxy has its turn: that is measured. Both fronts and the client
run on the workers' cores, above the workers' priority.

The engine is the embedded voice: a sentence takes it some 30 ms. With a slower one all times are longer, and what the
fronts themselves take weighs less. Capacity is measured first, in characters of text a second. A level's rate is such
that its own texts come to that share of it, as chance gives one draw of texts more long ones than another.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Annotated

import typer

from scripts.benchmarks.balancer_comparison.measure import Run, closed, opened
from scripts.benchmarks.balancer_comparison.offered_load import MOST_REQUESTS, Offer
from scripts.benchmarks.balancer_comparison.report import NAMES, Plan, Result, report, write_json
from scripts.benchmarks.balancer_comparison.result import Capacity, Level, summary_of
from scripts.benchmarks.balancer_comparison.servers import HAPROXY, Fronts, Side, find_haproxy, start_fronts
from scripts.support.console import fail, report_progress, run_command
from scripts.support.servers import ServerError, interrupt_on_signals, physical_core_count

CLIENTS_A_WORKER = 4
"""Of the closed loop: no worker waits for the next text, and the fronts have a choice."""
WARM_UP_REQUESTS = 10
"""Of each front and worker, not counted: memory for the longest texts is allocated, connections are dialled."""
SAME_AUDIO = 0.01
"""Two sides' audio of one text may differ by that share."""


class BenchError(RuntimeError):
    """There is no result; the message says why."""


def main(
    requests: Annotated[
        int, typer.Option(min=1, max=MOST_REQUESTS, help="Requests of each level, side and round.")
    ] = 250,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the sides take turns within each.")] = 2,
    levels: Annotated[str, typer.Option(help="Loads in per cent of capacity.")] = "40,80,110",
    seed: Annotated[int, typer.Option(min=0, help="Settles texts and arrival times.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Workers; left out: one a physical core.")] = None,
    sjf_window: Annotated[float | None, typer.Option(min=0, help="Chorus's setting CHORUS_SJF_WINDOW.")] = None,
    haproxy: Annotated[str, typer.Option(help="The program.")] = HAPROXY,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write everything to this file.")] = None,
) -> None:
    """Measure and print latencies and throughput of both; tables are Markdown."""
    interrupt_on_signals()
    settings: dict[str, object] = {} if sjf_window is None else {"sjf_window": sjf_window}
    plan = Plan(workers or physical_core_count(), requests, rounds, _percents(levels), seed, settings)
    try:
        result = measure(plan, find_haproxy(haproxy))
    except (BenchError, ServerError) as error:
        fail("bench_scheduling", error)
    print(report(result))
    if json_file is not None:
        write_json(json_file, result)


def measure(plan: Plan, haproxy: str) -> Result:
    """Start everything, let the sides take turns. Raises ServerError, BenchError."""
    report_progress(f"starting {plan.workers} workers, Chorus and HAProxy")
    with (
        tempfile.TemporaryDirectory(prefix="chorus-bench-") as name,
        start_fronts(haproxy, workers=plan.workers, settings=plan.settings, folder=Path(name)) as fronts,
    ):
        numbers = count()
        clients = CLIENTS_A_WORKER * plan.workers

        def draw(requests: int) -> Offer:
            return Offer.draw(requests, seed=plan.seed, number=next(numbers))

        for side in Side:
            closed(fronts, side, draw(WARM_UP_REQUESTS * plan.workers), clients=clients, number=0)
        capacity = _capacity(fronts, plan, clients, draw)
        return Result(plan, _version(haproxy), capacity, _levels(fronts, plan, capacity, draw))


def _capacity(fronts: Fronts, plan: Plan, clients: int, draw: Callable[[int], Offer]) -> Capacity:
    runs = []
    for number in range(plan.rounds):
        offer = draw(plan.requests)
        for side in _turns(number):
            run = closed(fronts, side, offer, clients=clients, number=number)
            report_progress(f"capacity, round {number + 1} of {plan.rounds}, {_outcome(run)}")
            runs.append(run)
    for run in runs:
        if all(record.error for record in run.records):
            raise BenchError(f"{NAMES[run.side]} answered nothing in the closed loop: {run.records[0].error}")
    return Capacity(clients, runs)


def _levels(fronts: Fronts, plan: Plan, capacity: Capacity, draw: Callable[[int], Offer]) -> list[Level]:
    rates: dict[int, list[float]] = {percent: [] for percent in plan.levels}
    results: dict[int, list[Run]] = {percent: [] for percent in plan.levels}
    for number in range(plan.rounds):
        for index, percent in enumerate(plan.levels):
            offer = draw(plan.requests)
            rate = offer.rate(percent / 100 * capacity.characters_per_second)
            runs = []
            for side in _turns(number + index):
                run = opened(fronts, side, offer, rate=rate, number=number)
                report_progress(f"{percent} %, round {number + 1} of {plan.rounds}, {_outcome(run)}")
                runs.append(run)
            _check_same(runs)
            rates[percent].append(rate)
            results[percent].extend(runs)
    return [Level(percent, rates[percent], results[percent]) for percent in plan.levels]


def _turns(number: int) -> list[Side]:
    """Who begins takes turns, too: a machine that grows warm or busy is then unfair to both."""
    return list(Side) if number % 2 == 0 else list(reversed(Side))


def _check_same(runs: Sequence[Run]) -> None:
    """Raise BenchError where the sides made another audio of the same text."""
    one, other = ({record.intended: record.audio_seconds for record in run.records} for run in runs)
    for due, seconds in one.items():
        theirs = other[due]
        if seconds and theirs and abs(seconds - theirs) > SAME_AUDIO * theirs:
            raise BenchError(
                f"the sides did not do the same work: of one text {runs[0].side} made {seconds:.3f} s of audio, "
                f"{runs[1].side} {theirs:.3f} s"
            )


def _percents(levels: str) -> tuple[int, ...]:
    percents = [int(part) if part.strip().isdecimal() else 0 for part in levels.split(",")]
    if not all(percents) or len(set(percents)) != len(percents):
        raise typer.BadParameter("--levels must be different whole numbers of per cent, such as 40,80,110")
    return tuple(percents)


def _version(haproxy: str) -> str:
    said = subprocess.run([haproxy, "-v"], capture_output=True, text=True, check=True).stdout
    return " ".join(said.split()[:3])


def _outcome(run: Run) -> str:
    summary = summary_of([run])
    return (
        f"{NAMES[run.side]}: {summary.succeeded} of {summary.requests} answered in {run.seconds:.1f} s; "
        f"others took {run.cpu.others:.2f} cores"
    )


if __name__ == "__main__":
    run_command(main, "scripts/bench_scheduling")
