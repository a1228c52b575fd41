"""The report of a study: one HTML file that needs nothing else, and the same figures as JSON."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from balancer.capacity import charts
from balancer.capacity.costs import HIT_SHARES, SAFETY_SHARE, Yield
from balancer.capacity.plan import PlannedHosts
from balancer.capacity.step import Step
from balancer.capacity.study import HostFacts, Study

RATE = "requests a second"
"""Label of the axis of rates."""
MAX_CHARACTERS = 120
"""Of the list of what broke a target, in a cell of a table."""


@dataclass(frozen=True)
class Prices:
    """What is asked beside the measurements."""

    price_per_hour: float | None = None
    """Dollars for an hour of the measured host."""
    requests_per_minute: float | None = None
    """The load that hosts are needed for."""


@dataclass(frozen=True)
class Comparison:
    """The knee of the measured host, as measured and as simulated, in requests per second."""

    measured: float
    simulated: float

    @property
    def error(self) -> float:
        """The difference as a share of what was measured; positive: the simulation promises too much."""
        return self.simulated / self.measured - 1


@dataclass(frozen=True)
class CapacityPlan:
    """Other hosts and counts of hosts, on paper."""

    comparison: Comparison | None
    rows: tuple[PlannedHosts, ...]


def yield_of(study: Study) -> Yield | None:
    """What the measured host makes at its knee; None if the knee is not known."""
    knee = study.knee
    if knee is None or not knee.answered:
        return None
    return Yield(knee.offered_rate, knee.audio_seconds / knee.answered, knee.characters / knee.answered)


def figures(study: Study, prices: Prices, plan: CapacityPlan | None) -> dict[str, Any]:
    """The result as JSON has it."""
    result: dict[str, Any] = {
        "begun_at": study.begun_at.isoformat(),
        "complete": study.done,
        "host": study.host.model_dump(),
        "target": study.conditions.target.model_dump(),
        "steps": [
            step.model_dump(exclude={"samples"}) | {"broken_by": study.conditions.target.broken_by(step)}
            for step in study.steps
        ],
    }
    if (made := yield_of(study)) is not None:
        result["knee"] = {
            "requests_per_second": made.rate,
            "requests_per_minute": made.requests_per_minute,
            "audio_seconds_per_minute": made.audio_seconds_per_minute,
        }
        if prices.price_per_hour is not None:
            result["knee"] |= {
                "dollars_per_million_characters": made.dollars_per_million_characters(prices.price_per_hour),
                "dollars_per_audio_hour": made.dollars_per_audio_hour(prices.price_per_hour),
            }
        if prices.requests_per_minute is not None:
            result["knee"]["hosts"] = made.hosts_for(prices.requests_per_minute)
        if study.cached_rate:
            result["cache"] = {f"{share:g}": 60 * made.with_cache(share, study.cached_rate) for share in HIT_SHARES}
    if plan is not None:
        result["plan"] = {
            "simulated_requests_per_second": None if plan.comparison is None else plan.comparison.simulated,
            "error": None if plan.comparison is None else plan.comparison.error,
            "hosts": [
                {
                    "cpus": row.cpus,
                    "workers": row.size.workers,
                    "slots": row.size.all_slots,
                    "hosts": row.hosts,
                    "requests_per_minute": 60 * row.rate,
                    "short_p95": row.short_p95,
                }
                for row in plan.rows
            ],
        }
    return result


def page(study: Study, prices: Prices, plan: CapacityPlan | None) -> str:
    """The HTML file."""
    host = study.host
    parts = [
        f"<h1>Capacity of a host: {html.escape(host.engine)}</h1>",
        f"<p>{study.begun_at:%Y-%m-%d %H:%M} UTC · {html.escape(host.processor)}, {host.cpus} vCPU · "
        f"{host.workers} workers, {host.slots} slots · target: {html.escape(str(study.conditions.target))} · "
        f"texts: {html.escape(study.conditions.texts)}</p>",
    ]
    if not study.done:
        parts.append("<p class=note>The search is not complete: <code>--resume</code> goes on with it.</p>")
    parts += [_answer(study, prices), _cache(study), _plots(study), _steps(study)]
    if plan is not None:
        parts.append(_plan(study, prices, plan))
    parts.append(_method())
    return _PAGE.format(title=f"Capacity: {html.escape(host.engine)}", body="\n".join(part for part in parts if part))


def _answer(study: Study, prices: Prices) -> str:
    made = yield_of(study)
    if made is None:
        return "<p class=note>No rate has kept the target.</p>"
    rows = [
        ("requests a minute", f"{made.requests_per_minute:,.0f}"),
        ("audio seconds a minute", f"{made.audio_seconds_per_minute:,.0f}"),
    ]
    if (price := prices.price_per_hour) is not None:
        rows += [
            ("price of the host", f"${price:g} an hour, ${price * 730:,.0f} a month"),
            ("a million characters", f"${made.dollars_per_million_characters(price):.3f}"),
            ("an hour of audio", f"${made.dollars_per_audio_hour(price):.4f}"),
        ]
    if (load := prices.requests_per_minute) is not None:
        hosts = made.hosts_for(load)
        cost = "" if prices.price_per_hour is None else f", ${hosts * prices.price_per_hour * 730:,.0f} a month"
        rows.append((f"hosts for {load:g} requests a minute, at {SAFETY_SHARE:.0%} of the knee", f"{hosts}{cost}"))
    return "<h2>At the target</h2>" + _table((), rows)


def _cache(study: Study) -> str:
    made = yield_of(study)
    if made is None or not study.cached_rate:
        return ""
    rows = [
        (f"{share:.0%}", f"{60 * (rate := made.with_cache(share, study.cached_rate)):,.0f}", f"{rate / made.rate:.1f}")
        for share in HIT_SHARES
    ]
    return (
        f"<h2>With cache hits</h2><p>The host answers {study.cached_rate:,.0f} requests a second from its cache.</p>"
        + _table(("of all requests from the cache", "requests a minute", "times as many"), rows)
    )


def _plots(study: Study) -> str:
    steps = sorted(study.steps, key=lambda step: step.rate)
    if not steps:
        return ""
    knee = study.knee or steps[0]
    plots = [*_latency_plots(steps, knee), _throughput_plot(steps)]
    if study.host.slots and any(step.mean("slots_used") is not None for step in steps):
        plots += _load_plots(steps, knee, study.host)
    return "<h2>By rate</h2><div class=plots>" + "".join(f"<figure>{plot}</figure>" for plot in plots) + "</div>"


def _latency_plots(steps: Sequence[Step], knee: Step) -> Iterator[str]:
    latency = {
        name: _by_rate(steps, (getattr(step.latency, name) for step in steps)) for name in ("p50", "p90", "p95", "p99")
    }
    yield charts.lines("Latency by rate", RATE, "seconds", latency)
    if any(step.latency_short for step in steps):
        short = {
            name: _by_rate(steps, (getattr(step.latency_short, name, None) for step in steps))
            for name in ("p50", "p95", "p99")
        }
        yield charts.lines("Latency of texts of one sentence", RATE, "seconds", short)
    if any(step.first_sound for step in steps):
        first = {
            name: _by_rate(steps, (getattr(step.first_sound, name, None) for step in steps)) for name in ("p50", "p95")
        }
        yield charts.lines("First sound of streams", RATE, "seconds", first)
    percentiles = {
        f"{step.offered_rate:.1f} a second": [
            (percent, getattr(step.latency, name))
            for percent, name in ((50, "p50"), (90, "p90"), (95, "p95"), (99, "p99"), (100, "max"))
        ]
        for step in _around(steps, knee)
    }
    yield charts.lines("Percentiles of latency", "percentile", "seconds", percentiles)


def _throughput_plot(steps: Sequence[Step]) -> str:
    throughput = {
        "requests answered": _by_rate(steps, (step.answered / step.seconds for step in steps)),
        "audio seconds": _by_rate(steps, (step.audio_seconds / step.seconds for step in steps)),
    }
    return charts.lines("Throughput", RATE, "a second", throughput)


def _load_plots(steps: Sequence[Step], knee: Step, host: HostFacts) -> Iterator[str]:
    """Slots, CPUs and queue of a server that tells of them."""
    in_use = {
        "slots": _by_rate(steps, (_share(step.mean("slots_used"), host.slots) for step in steps)),
        "CPUs of the workers": _by_rate(steps, (_share(step.mean("worker_cores"), host.cpus) for step in steps)),
        "CPUs of the host": _by_rate(steps, (step.mean("host_cpu") for step in steps)),
    }
    yield charts.lines("Slots and CPU", RATE, "share in use", in_use)
    queue = {
        "mean": _by_rate(steps, (step.mean("queue_depth") for step in steps)),
        "maximum": _by_rate(steps, map(_max_queue, steps)),
    }
    yield charts.lines("Queue", RATE, "utterances", queue)
    over_time = {
        f"{step.offered_rate:.1f} a second": [(sample.at, sample.queue_depth) for sample in step.samples]
        for step in _around(steps, knee)
    }
    yield charts.lines("Queue in the course of a step", "seconds", "utterances", over_time)


def _by_rate(steps: Sequence[Step], values: Iterable[float | None]) -> charts.Points:
    return list(zip((step.offered_rate for step in steps), values, strict=True))


def _around(steps: Sequence[Step], knee: Step) -> list[Step]:
    """The lowest step, the knee and the one above it."""
    at = steps.index(knee)
    return [steps[number] for number in sorted({0, at, min(at + 1, len(steps) - 1)})]


def _share(value: float | None, of: float) -> float | None:
    return None if value is None else value / of


def _max_queue(step: Step) -> float | None:
    return max((sample.queue_depth for sample in step.samples if sample.queue_depth is not None), default=None)


def _steps(study: Study) -> str:
    rows = []
    for step in sorted(study.steps, key=lambda step: step.rate):
        reasons = "; ".join(study.conditions.target.broken_by(step)) or "kept"
        rows.append(
            (
                f"{step.rate:.2f}",
                f"{step.offered_rate:.2f}",
                str(step.requests),
                str(step.failed),
                str(step.unanswered),
                *(f"{seconds:.3f}" for seconds in (step.latency.p50, step.latency.p95, step.latency.p99)),
                f"{step.audio_seconds / step.seconds:.1f}",
                f"{1000 * step.lag:.0f}",
                reasons[:MAX_CHARACTERS],
            )
        )
    head = (
        "rate", "offered", "requests", "failed", "unanswered", "p50 s", "p95 s", "p99 s", "audio s/s",
        "lag of this client, p99 ms", "target",
    )  # fmt: skip
    return "<h2>All steps</h2>" + _table(head, rows)


def _plan(study: Study, prices: Prices, plan: CapacityPlan) -> str:
    text = "<h2>Other hosts, simulated</h2>"
    if plan.comparison is not None:
        text += (
            f"<p>The simulation of the measured host has its knee at {plan.comparison.simulated:.2f} requests a "
            f"second; "
            f"measured: {plan.comparison.measured:.2f}. Error: {plan.comparison.error:+.1%}.</p>"
        )
    rows = []
    for row in plan.rows:
        price = (
            None if prices.price_per_hour is None else prices.price_per_hour * row.cpus / study.host.cpus * row.hosts
        )
        rows.append(
            (
                str(row.hosts),
                str(row.cpus),
                str(row.size.workers),
                str(row.size.all_slots),
                f"{60 * row.rate:,.0f}",
                "" if row.short_p95 is None else f"{row.short_p95:.3f}",
                "" if price is None else f"{price * 730:,.0f}",
            )
        )
    head = (
        "hosts",
        "vCPU each",
        "workers each",
        "slots each",
        "requests a minute",
        "p95 of one sentence, s",
        "$ a month",
    )
    return text + _table(head, rows)


def _method() -> str:
    return (
        "<h2>How it was measured</h2><p>Requests are sent at random (Poisson) times, however many are outstanding, "
        "and their latency counts from the time at which each was due. The cache is left out. A rate keeps the target "
        "if no request fails and the latencies do not rise while it lasts. The simulation runs the scheduler of the "
        "server with the times that utterances took here, by the number of slots in use; hosts of other sizes have as "
        "many workers for each vCPU, at the price in proportion.</p>"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{f'<thead><tr>{cells}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 1480px; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.6rem }} h2 {{ font-size: 1.2rem; margin-top: 2rem }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ border-bottom: 1px solid #ddd; padding: .3rem .8rem; text-align: right }}
td:first-child, th:first-child, td:last-child {{ text-align: left }}
.plots {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 560px), 1fr)); gap: 1rem }}
svg {{ display: block; width: 100% }}
svg text {{ font-family: system-ui, sans-serif }}
figure {{ margin: 0; border: 1px solid #ddd; border-radius: 6px }}
.note {{ background: #fff3cd; padding: .5rem 1rem; border-radius: 6px }}
</style>
</head>
<body>
{body}
</body>
</html>
"""
