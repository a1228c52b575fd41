"""Times of the day, and durations with colons."""

from __future__ import annotations

import re

from balancer.text.english.cardinals import cardinal, pair
from balancer.text.english.rules import At, rule

_NEW_SENTENCE = re.compile(r"\s(?!Mon|Tue|Wed|Thu|Fri|Sat|Sun|[A-Z]{2})[A-Z]")
_HALF = r"(?P<half>[AaPp])(?:\.\s?[Mm]\.?|[Mm]\b\.?(?!\w))"
_CLOCK = r"(?:[01]?[0-9]|2[0-4]):[0-5][0-9]"


def clock(hour: int, minute: int, *, half: bool = False) -> str:
    """A time of 24 hours, or of 12 with A M or P M behind it."""
    if minute:
        return f"{cardinal(hour)} {pair(minute)}"
    if half:
        return cardinal(hour)
    if hour == 0:
        return "midnight"
    return f"{cardinal(hour)} o'clock" if hour <= 12 else f"{cardinal(hour)} hundred"


def _clock(written: str) -> str:
    hour, _, minute = written.partition(":")
    if hour in ("0", "00") and minute != "00":
        return f"zero {cardinal(int(minute)) if minute[0] != '0' else 'oh ' + cardinal(int(minute))}"
    return clock(int(hour), int(minute))


def _of_half_day(match: re.Match[str]) -> str:
    minute = int(match["minute"] or 0)
    first = ""
    if match["first"]:
        hour, _, minutes = match["first"].partition(":")
        first_half = f" {match['first_half'][0].upper()} M" if match["first_half"] else ""
        first = f"{clock(int(hour), int(minutes or 0), half=True)}{first_half} to "
    said = f"{first}{clock(int(match['hour']), minute, half=True)} {match['half'].upper()} M"
    return said + _full_stop(match)


def _full_stop(match: re.Match[str]) -> str:
    """The full stop of an abbreviation, where it ends a sentence, too."""
    if not match[0].endswith("."):
        return ""
    following = match.string[match.end() : match.end() + 12]
    ends = not following.strip() or following.startswith("\n") or _NEW_SENTENCE.match(following)
    return "." if ends else ""


def _seconds(match: re.Match[str]) -> str:
    hour, minute, second = match[1], int(match[2]), int(match[3])
    said = f"{cardinal(int(hour))} {pair(minute) if minute else 'hundred'}"
    return f"{said} and {cardinal(second)} second{'' if second == 1 else 's'}"


RULES = (
    rule(r"\b(noon|midnight)\s?[-\u2013]\s?(?=\d)", r"\1 to ", needs=("noon", "midnight")),
    rule(
        rf"(?<![\w:.$\u20ac\u00a3])(?:(?P<first>[0-9]{{1,2}}(?::[0-5][0-9])?)\s?(?P<first_half>[AaPp]\.?[Mm]\.?)?\s?(?:[-\u2013]|to\b)\s?)?(?P<hour>1[0-2]|0?[0-9])(?:[:.](?P<minute>[0-5][0-9]))?\s?{_HALF}",
        _of_half_day,
        at=At.numbers,
    ),
    rule(
        r"(?<![\w:.$\u20ac\u00a3])([0-9]{1,3}):([0-5][0-9]):([0-5][0-9])(?![\w:])", _seconds, needs=":", at=At.numbers
    ),
    rule(
        rf"(?<![\w:.$\u20ac\u00a3])({_CLOCK})\s?[-\u2013]\s?({_CLOCK})(?![\w:])",
        lambda match: f"{_clock(match[1])} to {_clock(match[2])}",
        needs=":",
        at=At.numbers,
    ),
    rule(
        rf"(?<![\w:.$\u20ac\u00a3])({_CLOCK})(?![\w:])(?!\s(?:ratio|scale|mix))",
        lambda match: _clock(match[1]),
        needs=":",
        at=At.numbers,
    ),
)
