"""Compares Chorus with HAProxy in front of the same workers, by turns in one run: latency by length of text.

HAProxy has the setup of a careful operator: `leastconn`, one utterance per worker at a time, all others in its queue.
Both have the same worker processes (started by `chorus serve`), engine, texts, arrival times, voice, number and kind of
connections, and raw samples as the answer. Chorus receives a complete utterance before it answers, as it does for its
users; HAProxy forwards the samples as they come. Latency counts to the last byte. HAProxy's client follows the worker
contract and checks that an answer is complete, which Chorus does for its clients. No text occurs twice, so that no
cache has an answer. HAProxy has no health checks, while Chorus polls its workers twice a second, also during HAProxy's
turns: the report has that CPU time. Both balancers and the client run on the cores of the workers, at a higher
priority.

The engine is the built-in voice, which needs about 30 ms for a sentence. With a slower engine all times are longer, and
the balancers' own time matters less. Capacity is measured first, in characters of text per second. The rate of a load
level is such that its own texts come to that share of the capacity, because one draw of texts has more long ones than
another.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Annotated

import typer

from scripts.benchmarks.balancer_comparison.measure import LoadRun, run_closed_loop, run_open_loop
from scripts.benchmarks.balancer_comparison.offered_load import MAX_REQUESTS, OfferedLoad
from scripts.benchmarks.balancer_comparison.report import NAMES, ComparisonPlan, ComparisonResult, report, write_json
from scripts.benchmarks.balancer_comparison.result import Capacity, LoadLevel, summarise_runs
from scripts.benchmarks.balancer_comparison.servers import (
    HAPROXY,
    Balancer,
    BalancerPair,
    find_haproxy,
    start_balancers,
)
from scripts.support.console import JsonOption, fail, report_progress, run_command
from scripts.support.markdown import plural
from scripts.support.servers import ServerError, interrupt_on_signals, physical_core_count

CLIENTS_PER_WORKER = 4
"""Clients of the closed loop: no worker is idle, and the balancers have utterances to choose from."""
WARM_UP_REQUESTS = 10
"""Requests per balancer and worker that are not measured, unless --warm-up says otherwise: connections are made, memory
for long texts is allocated."""
AUDIO_TOLERANCE = 0.15
"""Share by which the audio of one text may differ in length between the balancers: Chorus speaks a text in segments,
with pauses of its own between them."""


class ComparisonError(RuntimeError):
    """The comparison has no result; the message says why."""


def main(  # noqa: PLR0917 - each is an option
    requests: Annotated[
        int, typer.Option(min=1, max=MAX_REQUESTS, help="Requests per load level, balancer and round.")
    ] = 250,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, in each of which both balancers have a turn.")] = 2,
    levels: Annotated[str, typer.Option(help="Load levels in per cent of the capacity.")] = "40,80,110",
    warm_up: Annotated[
        int, typer.Option(min=1, help="Requests per balancer and worker that are not measured.")
    ] = WARM_UP_REQUESTS,
    seed: Annotated[int, typer.Option(min=0, help="Seed of texts and arrival times.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Workers. Default: one per physical core.")] = None,
    sjf_window: Annotated[float | None, typer.Option(min=0, help="Chorus's setting CHORUS_SJF_WINDOW.")] = None,
    haproxy: Annotated[str, typer.Option(help="The HAProxy program.")] = HAPROXY,
    json_file: JsonOption = None,
) -> None:
    """Measure latency and throughput of Chorus and HAProxy; prints Markdown."""
    interrupt_on_signals()
    settings: dict[str, object] = {} if sjf_window is None else {"sjf_window": sjf_window}
    worker_count = workers or physical_core_count()
    plan = ComparisonPlan(worker_count, requests, warm_up, rounds, _parse_percents(levels), seed, settings)
    try:
        result = measure(plan, find_haproxy(haproxy))
    except (ComparisonError, ServerError) as error:
        fail("bench_scheduling", error)
    print(report(result))
    if json_file is not None:
        write_json(json_file, result)


def measure(plan: ComparisonPlan, haproxy: str) -> ComparisonResult:
    """Start all servers, and measure both balancers by turns. Raises ServerError, ComparisonError."""
    report_progress(f"starting {plural(plan.workers, 'worker')}, Chorus and HAProxy")
    with (
        tempfile.TemporaryDirectory(prefix="chorus-bench-") as name,
        start_balancers(haproxy, workers=plan.workers, settings=plan.settings, folder=Path(name)) as pair,
    ):
        numbers = count()
        clients = CLIENTS_PER_WORKER * plan.workers

        def draw(requests: int) -> OfferedLoad:
            return OfferedLoad.draw(requests, seed=plan.seed, number=next(numbers))

        for balancer in Balancer:
            load = draw(plan.warm_up * plan.workers)
            run_closed_loop(pair, balancer, load, clients=clients, round_number=0)
        capacity = _measure_capacity(pair, plan, clients, draw)
        levels = _measure_levels(pair, plan, capacity, draw)
        return ComparisonResult(plan, _version(haproxy), capacity, levels)


def _measure_capacity(
    pair: BalancerPair, plan: ComparisonPlan, clients: int, draw: Callable[[int], OfferedLoad]
) -> Capacity:
    runs = []
    for number in range(plan.rounds):
        load = draw(plan.requests)
        for balancer in _turns(number):
            run = run_closed_loop(pair, balancer, load, clients=clients, round_number=number)
            report_progress(f"capacity, round {number + 1} of {plan.rounds}, {_outcome(run)}")
            runs.append(run)
    for run in runs:
        if all(record.error for record in run.records):
            raise ComparisonError(f"{NAMES[run.balancer]} answered no request: {run.records[0].error}")
    return Capacity(clients, runs)


def _measure_levels(
    pair: BalancerPair, plan: ComparisonPlan, capacity: Capacity, draw: Callable[[int], OfferedLoad]
) -> list[LoadLevel]:
    rates: dict[int, list[float]] = {percent: [] for percent in plan.levels}
    results: dict[int, list[LoadRun]] = {percent: [] for percent in plan.levels}
    for number in range(plan.rounds):
        for index, percent in enumerate(plan.levels):
            load = draw(plan.requests)
            rate = load.rate(percent / 100 * capacity.characters_per_second)
            runs = []
            for balancer in _turns(number + index):
                run = run_open_loop(pair, balancer, load, rate=rate, round_number=number)
                report_progress(f"{percent} %, round {number + 1} of {plan.rounds}, {_outcome(run)}")
                runs.append(run)
            _check_equal_audio(runs)
            rates[percent].append(rate)
            results[percent].extend(runs)
    return [LoadLevel(percent, rates[percent], results[percent]) for percent in plan.levels]


def _turns(number: int) -> list[Balancer]:
    """Both balancers in alternating order, so that a machine that heats up or gets busy favours none."""
    return list(Balancer) if number % 2 == 0 else list(reversed(Balancer))


def _check_equal_audio(runs: Sequence[LoadRun]) -> None:
    """Raise ComparisonError if the balancers' answers to one text differ in length."""
    first, second = ({record.intended: record.audio_seconds for record in run.records} for run in runs)
    for due, one in first.items():
        other = second[due]
        if one and other and abs(one - other) > AUDIO_TOLERANCE * other:
            raise ComparisonError(
                f"the balancers did not do the same work: from one text {runs[0].balancer} made {one:.3f} s of audio, "
                f"{runs[1].balancer} {other:.3f} s"
            )


def _parse_percents(levels: str) -> tuple[int, ...]:
    percents = [int(part) if part.strip().isdecimal() else 0 for part in levels.split(",")]
    if not all(percents) or len(set(percents)) != len(percents):
        raise typer.BadParameter("--levels must be different whole numbers of per cent, such as 40,80,110")
    return tuple(percents)


def _version(haproxy: str) -> str:
    output = subprocess.run([haproxy, "-v"], capture_output=True, text=True, check=True).stdout
    return " ".join(output.split()[:3])


def _outcome(run: LoadRun) -> str:
    summary = summarise_runs([run])
    return (
        f"{NAMES[run.balancer]}: {summary.succeeded} of {summary.requests} answered in {run.seconds:.1f} s; "
        f"other programs used {run.cpu.others:.2f} cores"
    )


if __name__ == "__main__":
    run_command(main, "scripts/bench_scheduling")
