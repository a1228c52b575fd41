"""The report of `chorus check-precision` for people: a table of figures, one of texts, a verdict on each precision."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table


class _Row(NamedTuple):
    """One figure of a precision."""

    name: str
    figure: str
    written: Callable[[float], str]


def _percent(value: float) -> str:
    return f"{value:.2%}"


def _finely(value: float) -> str:
    return f"{value:.4%}"


def _decibels(value: float) -> str:
    return f"{value:.2f} dB"


def _number(value: float) -> str:
    return f"{value:.6f}"


_ROWS = (
    _Row("logits: largest difference, of their range", "logitLargest", _finely),
    _Row("logits: mean difference, of their range", "logitMean", _finely),
    _Row("next token: divergence, nats a step", "divergenceMean", _number),
    _Row("next token: largest divergence, nats", "divergenceLargest", _number),
    _Row("next token: likeliest one the same", "agreement", _percent),
    _Row("next token: the same where that is clear", "clearAgreement", _percent),
    _Row("next token: the same of one random draw", "drawAgreement", _percent),
    _Row("mel: mean difference of a band", "melMean", _number),
    _Row("mel: largest difference of a band", "melLargest", _number),
    _Row("mel: mel-cepstral distance", "melCepstral", _decibels),
    _Row("vocoder: signal to noise", "vocoderRatio", _decibels),
)

_BRIEF = {
    "divergenceMean": "divergence",
    "agreement": "same",
    "melCepstral": "mel",
    "vocoderRatio": "vocoder",
}
"""Those that are told of each text, with their headings."""


def show(report: dict[str, Any], console: Console) -> None:
    """Print the report."""
    precisions, stock = report["precisions"], report["stock"]
    first = precisions[0]
    console.print(
        f"{report['model']}, voice {report['voice']}, seed {report['seed']}: {len(first['texts'])} texts, "
        f"{report['speechSeconds']:.1f} s of speech, {first['figures']['steps']} tokens, "
        f"{first['figures']['clearSteps']} of them a clear choice",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    listing = Table("beside upstream's own classes")
    for each in precisions:
        listing.add_column(each["precision"], justify="right")
    for row in _ROWS:
        listing.add_row(row.name, *(_told(row, each["figures"]) for each in precisions))
    if stock is not None:
        cells = (_error_rate(each["figures"]["heard"]) for each in precisions)
        listing.add_row(f"word error rate (upstream's own: {_error_rate(stock)})", *cells)
    listing.add_section()
    listing.add_row("verdict", *(each["verdict"]["fitness"] for each in precisions))
    console.print(listing)
    if len(first["texts"]) > 1:
        console.print(_texts(precisions, heard=stock is not None))
    for each in precisions:
        verdict = each["verdict"]
        lines = [f"{each['precision']}: {verdict['fitness']}", *(f"  {reason}" for reason in verdict["reasons"])]
        _say(console, lines)
    _say(console, (f"Note: {note}" for note in report["notes"]))


def _texts(precisions: list[dict[str, Any]], *, heard: bool) -> Table:
    listing = Table(Column("text", no_wrap=True, ratio=1), "precision", expand=True)
    for heading in (*_BRIEF.values(), *(("errors",) if heard else ())):
        listing.add_column(heading, justify="right", no_wrap=True)
    for number in range(len(precisions[0]["texts"])):
        for place, each in enumerate(precisions):
            text, found = each["texts"][number]["text"], each["texts"][number]["figures"]
            cells = [_told(row, found) for row in _ROWS if row.figure in _BRIEF]
            if heard:
                cells.append("" if found["heard"] is None else f"{found['heard']['errors']}/{found['heard']['words']}")
            listing.add_row("" if place else escape(text), each["precision"], *cells)
    return listing


def _told(row: _Row, figures: dict[str, Any]) -> str:
    value = figures[row.figure]
    if value is not None:
        return row.written(value)
    # JSON has no word for what is no number; there may be no step at all at which upstream's choice is clear.
    return "" if row.figure == "clearAgreement" and not figures["clearSteps"] else "no number"


def _error_rate(heard: dict[str, Any] | None) -> str:
    return "not spoken" if heard is None else f"{heard['errors'] / heard['words']:.1%}"


def _say(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
