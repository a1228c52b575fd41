"""The summary of a load test as tables and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from balancer.load.driver import RequestRecord
from balancer.load.summary import LoadSummary


def print_tables(summary: LoadSummary, title: str, console: Console) -> None:
    """Print the summary as tables."""
    console.print(title, markup=False, highlight=False, soft_wrap=True)
    console.print(_totals(summary))
    if summary.latency:
        console.print(_latencies(summary))


def _totals(summary: LoadSummary) -> Table:
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("requests", str(summary.requests))
    table.add_row("with repeated texts", str(summary.repeated))
    table.add_row("succeeded", str(summary.succeeded))
    table.add_row("failed", str(summary.failed))
    for kind, count in summary.errors.items():
        table.add_row(f"  {escape(kind)}", str(count), style="red")
    if summary.abandoned:
        table.add_row("abandoned", str(summary.abandoned), style="yellow")
    table.add_row("seconds", f"{summary.seconds:.1f}")
    table.add_row("requests per minute", f"{summary.requests_per_minute:.1f}")
    if summary.audio_seconds_per_second is not None:
        table.add_row("audio seconds per second", f"{summary.audio_seconds_per_second:.2f}")
    if summary.segments_spoken is not None:
        table.add_row("segments spoken", str(summary.segments_spoken))
        table.add_row("segments from the cache", str(summary.segments_cached))
    if summary.lag:
        table.add_row("lag of the client, p99, ms", f"{1000 * summary.lag.p99:.0f}")
    return table


def _latencies(summary: LoadSummary) -> Table:
    caption = "timed-out requests are included, with their time-out as latency" if "timeout" in summary.errors else None
    table = Table(title="latency, seconds", title_justify="left", caption=caption, caption_justify="left")
    table.add_column("texts")
    for heading in ("requests", "p50", "p90", "p95", "p99", "max"):
        table.add_column(heading, justify="right")
    for name, percentiles in ({"all": summary.latency} | summary.latency_by_length).items():
        if percentiles:
            times = (percentiles.p50, percentiles.p90, percentiles.p95, percentiles.p99, percentiles.max)
            table.add_row(name, str(percentiles.requests), *(f"{time:.3f}" for time in times))
    return table


def write_json(
    file: Path, settings: dict[str, object], summary: LoadSummary, records: Sequence[RequestRecord] | None
) -> None:
    """Write settings, summary and, unless None, the record of every request."""
    report: dict[str, object] = {"settings": settings, "summary": asdict(summary)}
    if records is not None:
        report["records"] = [asdict(record) for record in records]
    file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
