"""Prints the report of `chorus check-precision`: a table of figures, a table of texts, a verdict on each precision."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table


class _Metric(NamedTuple):
    """One figure of a precision: its row label, its key in the report, and how its value is formatted."""

    label: str
    key: str
    format: Callable[[float], str]


def _percent(value: float) -> str:
    return f"{value:.2%}"


def _fine_percent(value: float) -> str:
    return f"{value:.4%}"


def _decibels(value: float) -> str:
    return f"{value:.2f} dB"


def _number(value: float) -> str:
    return f"{value:.6f}"


_METRICS = (
    _Metric("logits: maximum difference, relative to their range", "logitLargest", _fine_percent),
    _Metric("logits: mean difference, relative to their range", "logitMean", _fine_percent),
    _Metric("next token: mean KL divergence, nats per step", "divergenceMean", _number),
    _Metric("next token: maximum KL divergence, nats", "divergenceLargest", _number),
    _Metric("next token: same most likely token", "agreement", _percent),
    _Metric("next token: same where upstream's choice is clear", "clearAgreement", _percent),
    _Metric("next token: same in one random draw", "drawAgreement", _percent),
    _Metric("mel: mean difference per band", "melMean", _number),
    _Metric("mel: maximum difference per band", "melLargest", _number),
    _Metric("mel: mel-cepstral distance", "melCepstral", _decibels),
    _Metric("vocoder: signal-to-noise ratio", "vocoderRatio", _decibels),
)

_SIMILARITY = _Metric("speaker: similarity, by the model's voice encoder", "speakerSimilarity", _number)
"""A figure of another flow than upstream's."""

_PER_TEXT = {
    "divergenceMean": "divergence",
    "agreement": "same",
    "melCepstral": "mel",
    "vocoderRatio": "vocoder",
}
"""Figures that are shown for each text, with their column headings."""


def show(report: dict[str, Any], console: Console) -> None:
    """Prints the report."""
    precisions, upstream_errors = report["precisions"], report["stock"]
    first = precisions[0]
    console.print(
        f"{report['model']}, voice {report['voice']}, seed {report['seed']}: {len(first['texts'])} texts, "
        f"{report['speechSeconds']:.1f} s of speech, {first['figures']['steps']} tokens, "
        f"{first['figures']['clearSteps']} of them clear choices",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if report["flow"]:
        _print_lines(console, [f"flow: {report['flow']}, compared with upstream's own"])
    table = Table("compared with upstream")
    for each in precisions:
        table.add_column(each["precision"], justify="right")
    for metric in (*_METRICS, *((_SIMILARITY,) if report["flow"] else ())):
        table.add_row(metric.label, *(_format(metric, each["figures"]) for each in precisions))
    if upstream_errors is not None:
        cells = (_error_rate(each["figures"]["wordErrors"]) for each in precisions)
        table.add_row(f"word error rate (upstream: {_error_rate(upstream_errors)})", *cells)
    table.add_section()
    table.add_row("verdict", *(each["verdict"]["fitness"] for each in precisions))
    console.print(table)
    if len(first["texts"]) > 1:
        console.print(_texts_table(precisions, with_errors=upstream_errors is not None))
    for each in precisions:
        verdict = each["verdict"]
        lines = [f"{each['precision']}: {verdict['fitness']}", *(f"  {reason}" for reason in verdict["reasons"])]
        _print_lines(console, lines)
    _print_lines(console, (f"Note: {note}" for note in report["notes"]))


def _texts_table(precisions: list[dict[str, Any]], *, with_errors: bool) -> Table:
    table = Table(Column("text", no_wrap=True, ratio=1), "precision", expand=True)
    for heading in (*_PER_TEXT.values(), *(("errors",) if with_errors else ())):
        table.add_column(heading, justify="right", no_wrap=True)
    for number in range(len(precisions[0]["texts"])):
        for index, each in enumerate(precisions):
            text, figures = each["texts"][number]["text"], each["texts"][number]["figures"]
            cells = [_format(metric, figures) for metric in _METRICS if metric.key in _PER_TEXT]
            if with_errors:
                cells.append(
                    ""
                    if figures["wordErrors"] is None
                    else f"{figures['wordErrors']['errors']}/{figures['wordErrors']['words']}"
                )
            table.add_row("" if index else escape(text), each["precision"], *cells)
    return table


def _format(metric: _Metric, figures: dict[str, Any]) -> str:
    value = figures[metric.key]
    if value is not None:
        return metric.format(value)
    # JSON has no NaN. There may also be no step at which upstream's choice is clear.
    return "" if metric.key == "clearAgreement" and not figures["clearSteps"] else "not a number"


def _error_rate(transcript: dict[str, Any] | None) -> str:
    if transcript is None:
        return "no speech"
    return f"{transcript['errors'] / transcript['words']:.1%}"


def _print_lines(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
