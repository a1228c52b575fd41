"""`chorus capacity`: how much a running server carries, and how many hosts a load takes."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from balancer.capacity.observer import Observer
from balancer.capacity.plan import SIZES, PlannedHosts, Planner
from balancer.capacity.report import CapacityPlan, Comparison, Prices, figures, page, yield_of
from balancer.capacity.study import Study, StudyConditions, StudyError
from balancer.capacity.sweep import OutOfTimeError, Sweep, simulated_texts
from balancer.capacity.target import Target, parse_seconds
from balancer.cli.console import EXIT_UNREACHABLE, LOCAL_URL, ApiKey, Url, fail, tell
from balancer.load.client import ServerNotReadyError, SpeechClient
from balancer.load.texts import TextLines, TextMix, TextSource
from balancer.runtime.descriptor_limit import raise_descriptor_limit

DEFAULT_P95 = 2.0
MIX = "mix"
EXIT_INCOMPLETE = 4
"""The time was over before the knee was found; --resume goes on."""


def _seconds(text: str) -> float:
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def capacity(
    *,
    p95: Annotated[
        float | None,
        typer.Option(
            parser=_seconds,
            metavar="TIME",
            help="Limit of the 95th percentile of complete answers; 2s if none is given.",
        ),
    ] = None,
    first_sound: Annotated[
        float | None, typer.Option(parser=_seconds, metavar="TIME", help="Limit of streams' first sound, p95.")
    ] = None,
    gaps: Annotated[
        int | None, typer.Option(min=0, help="Times in all that listeners of streams may have nothing to play.")
    ] = None,
    step: Annotated[
        float, typer.Option(parser=_seconds, metavar="TIME", help="Time for which each rate is offered.")
    ] = "20s",  # type: ignore[assignment]  # the parser makes a float of it
    within: Annotated[
        float, typer.Option(parser=_seconds, metavar="TIME", help="Time after which no further rate is tried.")
    ] = "10m",  # type: ignore[assignment]
    start_rate: Annotated[
        float | None, typer.Option(min=0.001, help="Requests a second of the first step; default: by measured times.")
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="File with one text per line. Default: 60 % one sentence, 30 % four, 10 % twenty.",
        ),
    ] = None,
    voice: Annotated[str | None, typer.Option(help="Voice; default: the server's.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of texts and arrival times.")] = 0,
    price_per_hour: Annotated[float | None, typer.Option(min=0, help="Price of the measured host, in dollars.")] = None,
    requests_per_minute: Annotated[
        float | None, typer.Option(min=0.001, help="The load that is to be carried.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Simulate other hosts and counts of hosts from what was measured.")
    ] = False,
    cpus: Annotated[
        list[int] | None, typer.Option(help=f"vCPUs of hosts to plan with; default: {', '.join(map(str, SIZES))}.")
    ] = None,
    hosts: Annotated[
        int | None, typer.Option(min=1, max=64, help="Count of hosts to plan with; default: by the load, else 1.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", dir_okay=False, help="HTML report.")] = Path(
        "capacity.html"
    ),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the measurements beside the report (OUTPUT as .json).")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    url: Url = LOCAL_URL,
    api_key: ApiKey = "",
) -> None:
    """Measure how many requests a running server carries within a target, and write a report.

    Requests are offered at one rate after another until the target breaks; then the
    rate in between is sought. Nothing else should use the server meanwhile. Exit
    code 4: the time was over first, and --resume goes on.
    With --plan, what was measured before (--resume) is not measured again.
    """
    target = Target(p95=p95, first_sound=first_sound, gaps=gaps)
    if target == Target():
        target = Target(p95=DEFAULT_P95)
    source, texts_name = _texts(texts, seed)
    conditions = StudyConditions(url=url, target=target, step_seconds=step, texts=texts_name, voice=voice, seed=seed)
    file = output.with_suffix(".json")
    raise_descriptor_limit()
    try:
        earlier = _earlier(file, conditions) if resume else None
        study = asyncio.run(_measure(conditions, source, file, earlier, api_key, within, start_rate))
    except StudyError as error:
        fail(str(error))
    except ServerNotReadyError as error:
        fail(str(error), EXIT_UNREACHABLE)
    prices = Prices(price_per_hour, requests_per_minute)
    planned = _plan(study, source, prices, cpus or SIZES, hosts) if plan else None
    output.write_text(page(study, prices, planned), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(figures(study, prices, planned), indent=2))
    else:
        _print(study, prices, planned)
    tell(f"{output}: the report; {file}: the measurements")
    if not study.done:
        raise typer.Exit(EXIT_INCOMPLETE)


def _texts(file: Path | None, seed: int) -> tuple[Callable[[], TextSource], str]:
    """What makes a source of the texts, and the name by which a study knows it."""
    if file is None:
        return (lambda: TextMix(seed)), MIX
    try:
        content = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"--texts: {error}") from error
    if not (lines := [line.strip() for line in content.splitlines() if line.strip()]):
        raise typer.BadParameter(f"--texts: {file} contains no text")
    return (lambda: TextLines(lines)), f"{file.name}, {hashlib.sha256(content.encode()).hexdigest()[:12]}"


def _earlier(file: Path, conditions: StudyConditions) -> Study:
    """The study in a file. Raises StudyError if it is of other conditions."""
    study = Study.load(file)
    if names := study.conditions.differences(conditions):
        raise StudyError(f"{file} was measured with another {', '.join(names)}: give the same, or leave out --resume")
    return study


async def _measure(
    conditions: StudyConditions,
    source: Callable[[], TextSource],
    file: Path,
    study: Study | None,
    api_key: str,
    within: float,
    start_rate: float | None,
) -> Study:
    """The study as far as it got. A complete one is not measured again. Raises ServerNotReadyError."""
    if study is not None and study.done:
        return study
    async with Observer(conditions.url, api_key) as observer:
        if study is None:
            await _check_ready(conditions, api_key)
            if (host := await observer.facts()) is None:
                raise ServerNotReadyError(f"{conditions.url} tells nothing of its workers: use --api-key")
            study = Study(begun_at=datetime.now(UTC), conditions=conditions, host=host)
        kept = study

        def save(changed: Study) -> None:
            nonlocal kept
            kept = changed
            changed.save(file)

        sweep = Sweep(
            observer, source, api_key=api_key or None, within=within, save=save, tell=tell, start_rate=start_rate
        )
        try:
            return await sweep.run(study)
        except OutOfTimeError:
            tell("the time is over; --resume goes on")
            return kept


async def _check_ready(conditions: StudyConditions, api_key: str) -> None:
    async with SpeechClient(
        conditions.url, voice=None, audio_format="wav", api_key=api_key or None, timeout=10.0
    ) as client:
        await client.check_ready()


def _plan(
    study: Study, source: Callable[[], TextSource], prices: Prices, cpus: list[int] | tuple[int, ...], hosts: int | None
) -> CapacityPlan:
    """What hosts of other sizes carry, alone or as many as the load takes."""
    model = study.model
    if model is None:
        fail("nothing can be simulated: the server told nothing of its times (GET /metrics)")
    texts = simulated_texts(source(), study.conditions.seed, study.host.engine)
    planner = Planner(model, study.host, texts, study.conditions.target)
    simulated = planner.simulated_knee(study.conditions.step_seconds, study.conditions.seed)
    comparison = None if simulated is None or study.knee is None else Comparison(study.knee.rate, simulated)
    rows = [row for size in cpus if (row := _planned(planner, size, prices, hosts, tell)) is not None]
    return CapacityPlan(comparison, tuple(rows))


def _planned(
    planner: Planner, cpus: int, prices: Prices, hosts: int | None, tell_progress: Callable[[str], None]
) -> PlannedHosts | None:
    if hosts is None and prices.requests_per_minute is not None:
        planned = planner.plan_for(cpus, prices.requests_per_minute / 60, tell_progress)
        if planned is None:
            tell_progress(f"hosts of {cpus} vCPU do not carry it, however many")
        return planned
    return planner.plan(cpus, hosts or 1)


def _print(study: Study, prices: Prices, plan: CapacityPlan | None) -> None:
    console = Console()
    table = Table("measured", "", title=f"{study.host.engine}, target: {study.conditions.target}", title_justify="left")
    if (made := yield_of(study)) is None:
        table.add_row("no rate has kept the target", "")
    else:
        table.add_row("requests a minute", f"{made.requests_per_minute:,.0f}")
        table.add_row("audio seconds a minute", f"{made.audio_seconds_per_minute:,.0f}")
        if (price := prices.price_per_hour) is not None:
            table.add_row("dollars for a million characters", f"{made.dollars_per_million_characters(price):.3f}")
            table.add_row("dollars for an hour of audio", f"{made.dollars_per_audio_hour(price):.4f}")
        if (load := prices.requests_per_minute) is not None:
            table.add_row(f"hosts for {load:g} requests a minute", str(made.hosts_for(load)))
    console.print(table)
    if plan is None:
        return
    if (comparison := plan.comparison) is not None:
        console.print(
            f"simulated knee: {comparison.simulated:.2f} requests a second; measured: {comparison.measured:.2f}; "
            f"error {comparison.error:+.1%}"
        )
    simulated = Table(
        "hosts", "vCPU each", "workers each", "requests a minute", title="simulated", title_justify="left"
    )
    for row in plan.rows:
        simulated.add_row(str(row.hosts), str(row.cpus), str(row.size.workers), f"{60 * row.rate:,.0f}")
    console.print(simulated)
