"""Dates: ISO 8601, with strokes and points, with months' names; decades, ranges of years, days of the week."""

from __future__ import annotations

import re

from balancer.text.english.cardinals import cardinal, ordinal, pair, year
from balancer.text.english.rules import GAP, At, rule

MONTHS = tuple("January February March April May June July August September October November December".split())
_DAYS_OF_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_MONTH_NAMES = {name[:3]: name for name in MONTHS} | {name: name for name in MONTHS} | {"Sept": "September"}
_DAYS = {
    "Mon": "Monday", "Tue": "Tuesday", "Tues": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday", "Thur": "Thursday",
    "Thurs": "Thursday", "Fri": "Friday", "Sat": "Saturday", "Sun": "Sunday",
}  # fmt: skip
_MONTH = rf"(?P<month>{'|'.join(sorted(_MONTH_NAMES, key=len, reverse=True))})"
_SHORT_MONTH = r"(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)"
_DAY = "|".join(sorted(_DAYS, key=len, reverse=True))
_YEAR = r"(?:1[0-9]|20|21)[0-9]{2}"
_END = r"(?![\w]|[.,:/-]\d|%)"

_NAMED = tuple(name[:3] for name in MONTHS)
_DAYS_NAMED = tuple({name[:3] for name in _DAYS})

_TENS = {
    2: "twenties",
    3: "thirties",
    4: "forties",
    5: "fifties",
    6: "sixties",
    7: "seventies",
    8: "eighties",
    9: "nineties",
}
_UNCHANGED_TENS = {0: "hundreds", 1: "tens"}


def spoken_date(day: int, month: int, year_number: int | None) -> str | None:
    """March fifth, twenty twenty-four; None if there is no such day."""
    if not (1 <= month <= 12 and 1 <= day <= _DAYS_OF_MONTHS[month - 1]):
        return None
    said = f"{MONTHS[month - 1]} {ordinal(day)}"
    return said if year_number is None else f"{said}, {year(year_number)}"


def _full_year(written: str) -> int:
    number = int(written)
    return number if len(written) > 2 else number + (2000 if number < 70 else 1900)


def _iso(match: re.Match[str]) -> str | None:
    date = spoken_date(int(match["day"]), int(match["month"]), int(match["year"]))
    if date is None or match["hour"] is None:
        return date
    hour, minute = int(match["hour"]), int(match["minute"])
    second = int(match["second"] or 0)
    seconds = f" and {cardinal(second)} second{'' if second == 1 else 's'}" if second else ""
    return f"{date}, {cardinal(hour)} {pair(minute) if minute else 'hundred'}{seconds}"


def _by_strokes(match: re.Match[str]) -> str | None:
    first, second, number = int(match[1]), int(match[2]), _full_year(match[3])
    return spoken_date(second, first, number) or spoken_date(first, second, number)


def _by_points(match: re.Match[str]) -> str | None:
    return spoken_date(int(match[1]), int(match[2]), int(match[3]))


def _month_first(match: re.Match[str]) -> str | None:
    month = MONTHS.index(_MONTH_NAMES[match["month"]]) + 1
    last = f" to {ordinal(int(match['last']))}" if match["last"] else ""
    date = spoken_date(int(match["day"]), month, None)
    return date and date + last + (f", {year(int(match['year']))}" if match["year"] else "")


def _full_stop(match: re.Match[str]) -> str:
    """The full stop behind a month: it ends the sentence, or only the abbreviation."""
    following = match.string[match.end() : match.end() + 2]
    return "." if match["month"] in MONTHS or not following.strip() or following[-1:].isupper() else ""


def _day_first(match: re.Match[str]) -> str | None:
    if not 1 <= int(match["day"]) <= 31:
        return None
    last = f" to the {ordinal(int(match['last']))}" if match["last"] else ""
    number = f" {year(int(match['year']))}" if match["year"] else ""
    stop = _full_stop(match) if match[0].endswith(".") else ""
    return f"the {ordinal(int(match['day']))}{last} of {_MONTH_NAMES[match['month']]}{number}{stop}"


def _month_and_year(match: re.Match[str]) -> str:
    return f"{_MONTH_NAMES[match['month']]} {year(int(match['year']))}"


def _decade(match: re.Match[str]) -> str:
    century, tens = match[1], int(match[2])
    if not century:
        return _TENS.get(tens) or _UNCHANGED_TENS[tens]
    if century == "20" and tens == 0:
        return "two thousands"
    return f"{cardinal(int(century))} {_TENS.get(tens) or _UNCHANGED_TENS[tens]}"


def _years(match: re.Match[str]) -> str:
    first, last = match[1], match[2]
    return f"{year(int(first))} to {year(int(last)) if len(last) == 4 else pair(int(last))}"


RULES = (
    rule(
        r"(?<![\w-])(?P<year>[12][0-9]{3})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})"
        r"(?:(?:T|, | )(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:\.[0-9]{1,9})?)?(?: ?"
        r"(?:Z|[+-]00:?00)(?![\w:]))?)?(?![\w:]|-\w)",
        _iso,
        needs="-",
        abridges=True,
        at=At.numbers,
    ),
    rule(
        r"(?<![\w/.])([12][0-9]{3})/([0-9]{2})/([0-9]{2})(?![\w/])",
        lambda match: spoken_date(int(match[3]), int(match[2]), int(match[1])),
        needs="/",
        at=At.numbers,
    ),
    rule(r"(?<![\w/.])([0-9]{1,2})/([0-9]{1,2})/([0-9]{4}|[0-9]{2})(?![\w/])", _by_strokes, needs="/", at=At.numbers),
    rule(r"(?<![\w.])([0-9]{1,2})\. ?([0-9]{1,2})\. ?([0-9]{4})(?![\w]|\.\d)", _by_points, needs=".", at=At.numbers),
    rule(r"(?<![\w-])([0-9]{1,2})-([0-9]{1,2})-((?:19|20)[0-9]{2})(?![\w-])", _by_strokes, needs="-", at=At.numbers),
    rule(
        rf"\b{_MONTH}\b\.? (?P<day>[0-9]{{1,2}})(?:st|nd|rd|th)?(?:\s?[-\u2013]\s?(?P<last>[0-9]{{1,2}})(?:st|nd"
        r"|rd|th)?)?"
        rf"(?:,? (?P<year>{_YEAR}))?{_END}(?! (?:times|percent|people|days|years)\b)",
        _month_first,
        needs=_NAMED,
        at=At.capitals,
    ),
    rule(
        rf"(?<![\w.:])(?:[Tt]he )?(?P<day>[0-9]{{1,2}})(?:st|nd|rd|th)?(?:\s?[-\u2013]\s?(?P<last>[0-9]{{1,2}})"
        r"(?:st|nd|rd|th)?)?"
        rf" (?:of )?{_MONTH}\b\.?(?:,? (?P<year>{_YEAR}))?{_END}",
        _day_first,
        needs=_NAMED,
    ),
    rule(rf"\b{_MONTH}\b\.?,? (?:of )?(?P<year>{_YEAR}){_END}", _month_and_year, needs=_NAMED, at=At.capitals),
    rule(r"(?<![\w.,])(1[0-9]|20|21)([0-9])0'?s\b", _decade, at=At.numbers),
    rule(r"(?<![\w.,$])'?()([2-9])0'?s\b", _decade, at=At.numbers),
    rule(rf"(?<![\w.,/-])({_YEAR})\s?[-\u2013]\s?({_YEAR}|[0-9]{{2}})(?![\w-]|[.,]\d)", _years, at=At.numbers),
    rule(rf"\b({_SHORT_MONTH})\.(?={GAP}[^\W_]|,)", lambda match: _MONTH_NAMES[match[1]], needs=_NAMED, at=At.capitals),
    rule(
        rf"\b({_DAY})\b\.?\s?[-\u2013]\s?({_DAY})\b\.?",
        lambda match: f"{_DAYS[match[1]]} to {_DAYS[match[2]]}",
        needs=_DAYS_NAMED,
        at=At.capitals,
    ),
    rule(
        rf"\b(Mon|Tues?|Wed|Thu|Thurs?|Fri)\.(?=(?:{GAP})?[,\w]|$)(?!\s[A-Z][a-z]+ed\b)",
        lambda match: _DAYS[match[1]],
        needs=_DAYS_NAMED,
        at=At.capitals,
    ),
    rule(
        r"(?<=(?:on|nd|or|xt|st) )(Sat|Sun)\.",
        lambda match: f"{_DAYS[match[1]]}.",
        needs=("Sat", "Sun"),
        at=At.capitals,
    ),
    rule(
        rf"\b({_DAY})(?=, (?:\d|(?:{'|'.join(MONTHS)})\b))",
        lambda match: _DAYS[match[1]],
        needs=_DAYS_NAMED,
        at=At.capitals,
    ),
)
