"""The report of the comparison with HAProxy, as Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from balancer.load.summary import LoadSummary, Percentiles
from balancer.load.texts import LENGTH_CLASSES
from scripts.benchmarks.balancer_comparison.measure import CpuUse, LoadRun
from scripts.benchmarks.balancer_comparison.result import (
    QUANTILES,
    Capacity,
    LoadLevel,
    latencies_by_length,
    summarise_runs,
)
from scripts.benchmarks.balancer_comparison.servers import Balancer
from scripts.benchmarks.balancer_comparison.targets import TARGET_PERCENT, TargetResult, check_targets
from scripts.support.markdown import machine, plural, table
from scripts.support.noise import NOISE_CORES

NAMES = {Balancer.CHORUS: "Chorus", Balancer.HAPROXY: "HAProxy"}
IDLE_CORES = 0.05
"""Cores in use by the idle balancer above which the report warns: it would slow the other one down."""
LATE_SECONDS = 0.02
"""Lag of the client above which the report warns: it would be a part of the shortest latencies."""


@dataclass(frozen=True)
class ComparisonPlan:
    """The options of the comparison."""

    workers: int
    requests: int
    """Requests per level, balancer and round."""
    warm_up: int
    """Requests per balancer and worker before the first run."""
    rounds: int
    levels: tuple[int, ...]
    """Load levels in per cent of the capacity."""
    seed: int
    settings: dict[str, object]
    """Settings of Chorus that differ from their defaults."""


@dataclass(frozen=True)
class ComparisonResult:
    """All measurements of the comparison."""

    plan: ComparisonPlan
    haproxy: str
    """Version of HAProxy."""
    capacity: Capacity
    levels: list[LoadLevel]

    @property
    def targets(self) -> list[TargetResult] | None:
        """The results of the targets; None if their load level was not measured."""
        return next((check_targets(level) for level in self.levels if level.percent == TARGET_PERCENT), None)


def report(result: ComparisonResult) -> str:
    """The report as Markdown."""
    parts = [_heading(result), *_capacity(result.capacity)]
    for level in result.levels:
        parts += _level(level)
    return "\n\n".join([*parts, *_targets(result), *_remarks(result)])


def write_json(file: Path, result: ComparisonResult) -> None:
    """Write all measurements, without the records of single requests."""
    contents = {
        "machine": machine(),
        "haproxy": result.haproxy,
        "plan": asdict(result.plan),
        "capacity": {
            "clients": result.capacity.clients,
            "characters_per_second": result.capacity.characters_per_second,
            "balancers": {balancer: result.capacity.of(balancer) for balancer in Balancer},
            "runs": [_run(run) for run in result.capacity.runs],
        },
        "levels": [
            {
                "percent": level.percent,
                "rates": level.rates,
                "balancers": {balancer: asdict(summary) for balancer, summary in level.summaries.items()},
                "ratios": level.ratios,
                "ratios_by_round": [single.ratios for single in level.by_round()],
                "runs": [_run(run) for run in level.runs],
            }
            for level in result.levels
        ],
        "targets": None
        if result.targets is None
        else [asdict(target) | {"ratio": target.ratio} for target in result.targets],
    }
    file.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")


def _run(run: LoadRun) -> dict[str, object]:
    return {
        "balancer": run.balancer,
        "round": run.round,
        "characters": run.characters,
        "summary": asdict(summarise_runs([run])),
        "cpu": asdict(run.cpu),
    }


def _heading(result: ComparisonResult) -> str:
    plan = result.plan
    mix = ", ".join(
        f"{length.share:.0%} of {plural(length.sentences, 'sentence')} ({name})"
        for name, length in LENGTH_CLASSES.items()
    )
    settings = ", ".join(f"{name} {value}" for name, value in plan.settings.items()) or "defaults"
    workers, rounds = plural(plan.workers, "worker"), plural(plan.rounds, "round")
    requests = plural(plan.requests, "request")
    return (
        f"{machine()}; {result.haproxy}; {workers} of one thread behind both balancers; settings of Chorus: {settings}."
        f"\n\nTexts: {mix}. {requests} per level, balancer and round; {rounds}; seed {plan.seed}. Latency is the time "
        "from when a request was due until its last byte was received."
    )


def _capacity(capacity: Capacity) -> Iterator[str]:
    rows = []
    for balancer in Balancer:
        summary = summarise_runs([run for run in capacity.runs if run.balancer is balancer])
        rows.append([NAMES[balancer], f"{capacity.of(balancer):.0f}", *_throughputs(summary), *_counts(summary)])
    yield (
        f"**Capacity**: characters of text per second with {capacity.clients} clients, each of which sends its next "
        f"text when its last one is answered; the mean of both balancers is {capacity.characters_per_second:.0f}. "
        f"Chorus over HAProxy: {capacity.of(Balancer.CHORUS) / capacity.of(Balancer.HAPROXY):.3f}"
    )
    yield table(
        ("balancer", "characters/s", "requests/s", "audio s/s", "answered", "refused", "errors"),
        rows,
    )


def _level(level: LoadLevel) -> Iterator[str]:
    rates = " and ".join(f"{rate:.1f}" for rate in level.rates)
    yield f"**{level.percent} % of capacity**: {rates} requests per second at Poisson times"
    both = [level.summaries[balancer] for balancer in (Balancer.CHORUS, Balancer.HAPROXY)]
    chorus, haproxy = (latencies_by_length(summary) for summary in both)
    rows = [
        [
            length,
            str(latency.requests),
            *_milliseconds(latency),
            *_milliseconds(haproxy[length]),
            *(f"{level.ratios[length][name]:.2f}" for name in QUANTILES),
        ]
        for length, latency in chorus.items()
        if length in haproxy
    ]
    quantiles = [f"{column} {name}" for column in ("Chorus ms", "HAProxy ms", "ratio") for name in QUANTILES]
    yield table(("texts", "answers", *quantiles), rows)

    rows = []
    for balancer, summary in level.summaries.items():
        cpu = [run.cpu for run in level.runs if run.balancer is balancer]
        lag = f"{1000 * summary.lag.p99:.1f}" if summary.lag else "-"
        rows.append([NAMES[balancer], *_counts(summary), *_throughputs(summary), lag, *_cores(cpu)])
    rows.append(["ratio", "", "", "", *_throughput_ratios(*both), *[""] * 5])
    heading = ("balancer", "answered", "refused", "errors", "requests/s", "audio s/s", "lag of client p99 ms")
    yield table((*heading, "balancer's cores", "workers' cores", "client's cores", "others' cores"), rows)
    kinds = [
        f"{NAMES[balancer]}: {count} x {kind}"
        for balancer, summary in level.summaries.items()
        for kind, count in summary.errors.items()
    ]
    if kinds:
        yield f"Refusals and errors: {'; '.join(kinds)}"


def _targets(result: ComparisonResult) -> Iterator[str]:
    if result.targets is None:
        yield f"The targets were not checked: {TARGET_PERCENT} % of capacity is not among the levels."
        return
    yield f"**Targets at {TARGET_PERCENT} % of capacity**"
    rows = [
        [
            target.target,
            _quantity(target.chorus, target.unit),
            _quantity(target.haproxy, target.unit),
            "-" if target.ratio is None else f"{target.ratio:.2f}",
            "met" if target.met else "NOT met",
        ]
        for target in result.targets
    ]
    yield table(("target", "Chorus", "HAProxy", "ratio", "result"), rows)


def _remarks(result: ComparisonResult) -> Iterator[str]:
    runs = [run for level in result.levels for run in level.runs]
    idle = max(run.cpu.idle_balancer for run in runs)
    others = max(run.cpu.others for run in runs)
    lag = max(summary.lag.p99 for level in result.levels for summary in level.summaries.values() if summary.lag)
    yield (
        f"The idle balancer used at most {idle:.2f} cores, all other programs {others:.2f}; "
        f"the client was at most {1000 * lag:.1f} ms late (p99 of a level)."
    )
    if idle > IDLE_CORES:
        yield "WARNING: the idle balancer used the machine."
    if others > NOISE_CORES:
        yield "WARNING: other programs used the machine: the measurements are less reliable."
    if lag > LATE_SECONDS:
        yield "WARNING: the client was late: it had too little CPU time."


def _milliseconds(latency: Percentiles) -> list[str]:
    return [f"{1000 * getattr(latency, name):.0f}" for name in QUANTILES]


def _counts(summary: LoadSummary) -> list[str]:
    """The numbers of answers, of refusals (429 and 503) and of all other failures."""
    refused = sum(count for kind, count in summary.errors.items() if kind.startswith(("HTTP 429", "HTTP 503")))
    return [str(number) for number in (summary.succeeded, refused, summary.failed - refused)]


def _throughputs(summary: LoadSummary) -> list[str]:
    audio = summary.audio_seconds_per_second
    return [f"{summary.requests_per_minute / 60:.2f}", "-" if audio is None else f"{audio:.1f}"]


def _throughput_ratios(chorus: LoadSummary, haproxy: LoadSummary) -> list[str]:
    pairs = (
        (chorus.requests_per_minute, haproxy.requests_per_minute),
        (chorus.audio_seconds_per_second, haproxy.audio_seconds_per_second),
    )
    return [f"{ours / theirs:.3f}" if ours and theirs else "-" for ours, theirs in pairs]


def _cores(used: Sequence[CpuUse]) -> list[str]:
    return [
        f"{sum(getattr(cpu, name) for cpu in used) / len(used):.2f}"
        for name in ("balancer", "workers", "client", "others")
    ]


def _quantity(value: float | None, unit: str) -> str:
    match unit:
        case _ if value is None:
            return "no answers"
        case "s":
            return f"{1000 * value:.0f} ms"
        case "requests":
            return f"{value:.0f}"
        case _:
            return f"{value:.2f} {unit}"
