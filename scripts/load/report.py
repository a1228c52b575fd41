"""What the records of a run add up to, as a table and as JSON."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scripts.load.driver import Record
from scripts.load.texts import MIX


@dataclass(frozen=True)
class Spread:
    """How a duration was spread over the requests, in seconds."""

    requests: int
    p50: float
    p90: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self | None:
        """None without any."""
        if not seconds:
            return None
        return cls(len(seconds), *np.percentile(seconds, (50, 90, 95, 99, 100)).tolist())


@dataclass(frozen=True)
class Summary:
    """The result of a run.

    Latencies are those of good answers, and of time-outs up to when they were given up: it would flatter to
    leave the slowest out, or to let quick refusals in.
    """

    seconds: float
    """From the start to the last answer."""
    requests: int
    succeeded: int
    failed: int
    abandoned: int
    """Given up at the second Ctrl-C, hence neither."""
    repeated: int
    """Requests for a text that had been asked for before."""
    errors: dict[str, int]
    latency: Spread | None
    latency_by_length: dict[str, Spread]
    requests_per_minute: float
    """Good answers only."""
    audio_seconds: float | None
    """None where any good answer did not tell its length."""
    audio_seconds_per_second: float | None
    lag: Spread | None
    """How late this client sent: where it is not small beside the latency, the client was the bottleneck."""


def summarise(records: Sequence[Record], *, seconds: float, abandoned: int) -> Summary:
    """Add up the `records` of a run that took so many `seconds`."""
    good = [record for record in records if record.error is None]
    timed = [record for record in records if record.error in {None, "timeout"}]
    by_length = {
        length: spread
        for length in MIX
        if (spread := Spread.of([record.latency for record in timed if record.length == length]))
    }
    lengths = [record.audio_seconds for record in good if record.audio_seconds is not None]
    audio_seconds = sum(lengths) if good and len(lengths) == len(good) else None
    return Summary(
        seconds=seconds,
        requests=len(records) + abandoned,
        succeeded=len(good),
        failed=len(records) - len(good),
        abandoned=abandoned,
        repeated=sum(record.repeated for record in records),
        errors=dict(Counter(record.error for record in records if record.error).most_common()),
        latency=Spread.of([record.latency for record in timed]),
        latency_by_length=by_length,
        requests_per_minute=60 * len(good) / seconds,
        audio_seconds=audio_seconds,
        audio_seconds_per_second=None if audio_seconds is None else audio_seconds / seconds,
        lag=Spread.of([record.lag for record in records]),
    )


def print_tables(summary: Summary, title: str, console: Console) -> None:
    """Show the summary to people."""
    console.print(title, markup=False, highlight=False, soft_wrap=True)
    console.print(_totals(summary))
    if summary.latency:
        console.print(_latencies(summary))


def _totals(summary: Summary) -> Table:
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("requests", str(summary.requests))
    table.add_row("of them repeated texts", str(summary.repeated))
    table.add_row("succeeded", str(summary.succeeded))
    table.add_row("failed", str(summary.failed))
    for kind, count in summary.errors.items():
        table.add_row(f"  {escape(kind)}", str(count), style="red")
    if summary.abandoned:
        table.add_row("abandoned", str(summary.abandoned), style="yellow")
    table.add_row("seconds", f"{summary.seconds:.1f}")
    table.add_row("requests a minute", f"{summary.requests_per_minute:.1f}")
    if summary.audio_seconds_per_second is not None:
        table.add_row("audio seconds per second", f"{summary.audio_seconds_per_second:.2f}")
    if summary.lag:
        table.add_row("client's own lag, p99, ms", f"{1000 * summary.lag.p99:.0f}")
    return table


def _latencies(summary: Summary) -> Table:
    caption = "time-outs counted in, at the time they were given up" if "timeout" in summary.errors else None
    table = Table(title="latency, seconds", title_justify="left", caption=caption, caption_justify="left")
    table.add_column("texts")
    for heading in ("requests", "p50", "p90", "p95", "p99", "max"):
        table.add_column(heading, justify="right")
    for name, spread in ({"all": summary.latency} | summary.latency_by_length).items():
        if spread:
            times = (spread.p50, spread.p90, spread.p95, spread.p99, spread.max)
            table.add_row(name, str(spread.requests), *(f"{time:.3f}" for time in times))
    return table


def write_json(path: Path, settings: dict[str, object], summary: Summary, records: Sequence[Record] | None) -> None:
    """Keep settings, summary and, unless None, every request, for programs."""
    report: dict[str, object] = {"settings": settings, "summary": asdict(summary)}
    if records is not None:
        report["records"] = [asdict(record) for record in records]
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
