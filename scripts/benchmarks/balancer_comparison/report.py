"""What came of the comparison, as Markdown for people and as JSON for programs."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from scripts.benchmarks.balancer_comparison.measure import Cpu, Run
from scripts.benchmarks.balancer_comparison.result import QUANTILES, Capacity, Level, spreads, summary_of
from scripts.benchmarks.balancer_comparison.servers import Side
from scripts.benchmarks.balancer_comparison.targets import JUDGED_PERCENT, Verdict, judge
from scripts.load.report import LoadSummary, Percentiles
from scripts.load.texts import LENGTH_CLASSES

NAMES = {Side.CHORUS: "Chorus", Side.HAPROXY: "HAProxy"}
IDLE_CORES = 0.05
"""A front that is idle and takes more has a share in the other's result."""
NOISE_CORES = 0.15
"""More than a quiet machine's own services take."""
LATE_SECONDS = 0.02
"""A client later than that has a share in the shortest latencies."""


@dataclass(frozen=True)
class Plan:
    """What was done."""

    workers: int
    requests: int
    """Of each level, side and round."""
    rounds: int
    levels: tuple[int, ...]
    """In per cent of capacity."""
    seed: int
    settings: dict[str, object]
    """Of Chorus, that are not as they come."""


@dataclass(frozen=True)
class Result:
    """All of it."""

    plan: Plan
    haproxy: str
    """Its version."""
    capacity: Capacity
    levels: list[Level]

    @property
    def verdicts(self) -> list[Verdict] | None:
        """None where the level that counts was not measured."""
        return next((judge(level) for level in self.levels if level.percent == JUDGED_PERCENT), None)


def report(result: Result) -> str:
    """The result as Markdown."""
    parts = [_heading(result), *_capacity(result.capacity)]
    for level in result.levels:
        parts += _level(level)
    return "\n\n".join([*parts, *_verdicts(result), *_doubts(result)])


def write_json(file: Path, result: Result) -> None:
    """Keep every number, for programs; the latencies and lags of single requests are not among them."""
    contents = {
        "machine": machine(),
        "haproxy": result.haproxy,
        "plan": asdict(result.plan),
        "capacity": {
            "clients": result.capacity.clients,
            "characters_per_second": result.capacity.characters_per_second,
            "sides": {side: result.capacity.of(side) for side in Side},
            "runs": [_run(run) for run in result.capacity.runs],
        },
        "levels": [
            {
                "percent": level.percent,
                "rates": level.rates,
                "sides": {side: asdict(summary) for side, summary in level.summaries.items()},
                "ratios": level.ratios,
                "ratios_by_round": [single.ratios for single in level.by_round()],
                "runs": [_run(run) for run in level.runs],
            }
            for level in result.levels
        ],
        "aims": None
        if result.verdicts is None
        else [asdict(verdict) | {"ratio": verdict.ratio} for verdict in result.verdicts],
    }
    file.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")


def _run(run: Run) -> dict[str, object]:
    return {
        "side": run.side,
        "round": run.round,
        "characters": run.characters,
        "summary": asdict(summary_of([run])),
        "cpu": asdict(run.cpu),
    }


def machine() -> str:
    """What it ran on, in a line."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    cores = f"{psutil.cpu_count(logical=False)} cores, {psutil.cpu_count()} CPUs"
    memory = f"{psutil.virtual_memory().total / 2**30:.0f} GiB"
    return f"{next(names, platform.machine())}, {cores}, {memory}; Python {platform.python_version()}"


def _heading(result: Result) -> str:
    plan = result.plan
    mix = ", ".join(
        f"{length.share:.0%} of {length.sentences} sentences ({name})" for name, length in LENGTH_CLASSES.items()
    )
    settings = ", ".join(f"{name} {value}" for name, value in plan.settings.items())
    return (
        f"{machine()}; {result.haproxy}; {plan.workers} workers of one thread behind both fronts; Chorus's settings: "
        f"{settings or 'as they come'}.\n\n"
        f"Texts: {mix}. {plan.requests} requests a level, side and round; {plan.rounds} rounds; seed {plan.seed}. "
        "Latency is from when a request was due until its last byte was here."
    )


def _capacity(capacity: Capacity) -> Iterator[str]:
    rows = []
    for side in Side:
        summary = summary_of([run for run in capacity.runs if run.side is side])
        rows.append([NAMES[side], f"{capacity.of(side):.0f}", *_throughputs(summary), *_counts(summary)])
    yield (
        f"**Capacity**: characters of text a second with {capacity.clients} clients, each sending its next text when "
        f"its last is answered, from the start to the last answer; the mean of both sides is "
        f"{capacity.characters_per_second:.0f}. Chorus over HAProxy: "
        f"{capacity.of(Side.CHORUS) / capacity.of(Side.HAPROXY):.3f}"
    )
    heading = ("side", "characters/s", "requests/s", "audio s/s", "answered", "refused", "errors")
    yield _table(heading, rows)


def _level(level: Level) -> Iterator[str]:
    rates = " and ".join(f"{rate:.1f}" for rate in level.rates)
    yield f"**{level.percent} % of capacity**: {rates} requests a second at Poisson times"
    both = [level.summaries[side] for side in (Side.CHORUS, Side.HAPROXY)]
    chorus, haproxy = (spreads(summary) for summary in both)
    rows = [
        [length, str(spread.requests), *_milliseconds(spread), *_milliseconds(haproxy[length]), *_ratios(level, length)]
        for length, spread in chorus.items()
        if length in haproxy
    ]
    quantiles = [f"{who} {name}" for who in ("Chorus ms", "HAProxy ms", "ratio") for name in QUANTILES]
    yield _table(("texts", "answers", *quantiles), rows)

    rows = []
    for side, summary in level.summaries.items():
        cpu = [run.cpu for run in level.runs if run.side is side]
        lag = f"{1000 * summary.lag.p99:.1f}" if summary.lag else "-"
        rows.append([NAMES[side], *_counts(summary), *_throughputs(summary), lag, *_cores(cpu)])
    rows.append(["ratio", "", "", "", *_throughput_ratios(*both), *[""] * 5])
    heading = ("side", "answered", "refused", "errors", "requests/s", "audio s/s", "client's lag p99 ms")
    yield _table((*heading, "front's cores", "workers' cores", "client's cores", "others' cores"), rows)
    kinds = [
        f"{NAMES[side]}: {count} x {kind}"
        for side, summary in level.summaries.items()
        for kind, count in summary.errors.items()
    ]
    if kinds:
        yield f"Refusals and errors: {'; '.join(kinds)}"


def _verdicts(result: Result) -> Iterator[str]:
    if result.verdicts is None:
        yield f"The aims are not judged: {JUDGED_PERCENT} % of capacity is not among the levels."
        return
    yield f"**Aims at {JUDGED_PERCENT} % of capacity**"
    rows = [
        [
            verdict.aim,
            _figure(verdict.chorus, verdict.unit),
            _figure(verdict.haproxy, verdict.unit),
            "-" if verdict.ratio is None else f"{verdict.ratio:.2f}",
            "met" if verdict.met else "NOT met",
        ]
        for verdict in result.verdicts
    ]
    yield _table(("aim", "Chorus", "HAProxy", "ratio", "verdict"), rows)


def _doubts(result: Result) -> Iterator[str]:
    runs = [run for level in result.levels for run in level.runs]
    idle = max(run.cpu.idle_front for run in runs)
    others = max(run.cpu.others for run in runs)
    lag = max(summary.lag.p99 for level in result.levels for summary in level.summaries.values() if summary.lag)
    yield (
        f"The idle front took at most {idle:.2f} cores, everything else on the machine {others:.2f}; "
        f"the client was at most {1000 * lag:.1f} ms late (p99 of a level)."
    )
    if idle > IDLE_CORES:
        yield "WARNING: the idle front did not keep quiet."
    if others > NOISE_CORES:
        yield "WARNING: the machine was not quiet: trust the figures less."
    if lag > LATE_SECONDS:
        yield "WARNING: the client itself was late: it had too little of the machine."


def _milliseconds(spread: Percentiles) -> list[str]:
    return [f"{1000 * getattr(spread, name):.0f}" for name in QUANTILES]


def _ratios(level: Level, length: str) -> list[str]:
    return [f"{level.ratios[length][name]:.2f}" for name in QUANTILES]


def _counts(summary: LoadSummary) -> list[str]:
    """Answered, refused (429 and 503: not now) and whatever else went wrong."""
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


def _cores(used: Sequence[Cpu]) -> list[str]:
    return [
        f"{sum(getattr(cpu, name) for cpu in used) / len(used):.2f}"
        for name in ("front", "workers", "client", "others")
    ]


def _figure(value: float | None, unit: str) -> str:
    match unit:
        case _ if value is None:
            return "none answered"
        case "s":
            return f"{1000 * value:.0f} ms"
        case "requests":
            return f"{value:.0f}"
        case _:
            return f"{value:.2f} {unit}"


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] + ["---:"] * (len(heading) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
