"""Fractions, with strokes and in one character, also of a unit: `1 1/2 cups`, `2½ km`."""

from __future__ import annotations

import re
from fractions import Fraction
from unicodedata import numeric

from balancer.text.english.cardinals import cardinal, integer, ordinal
from balancer.text.english.rules import At, rule
from balancer.text.english.signs import SIGN, sign_words
from balancer.text.english.units import SYMBOLS, name_of

VULGAR = (
    "\u00bc\u00bd\u00be\u2150\u2151\u2152\u2153\u2154\u2155\u2156\u2157\u2158\u2159\u215a\u215b\u215c\u215d\u215e\u2189"
)
"""Fractions in one character."""
_MAX_DENOMINATOR = 20
"""Fractions of smaller parts are said as one number out of, or over, another."""
_SET_PHRASES = {"24/7": "twenty-four seven", "9/11": "nine eleven", "50/50": "fifty fifty", "20/20": "twenty twenty"}


def fraction(over: int, under: int) -> str:
    """`3/4`: three quarters."""
    if under == 0 or over > under or (over == under and under > 1):
        return f"{cardinal(over)} {'out of' if over == under else 'over'} {cardinal(under)}"
    if (under > _MAX_DENOMINATOR and under not in (32, 50, 64, 100, 1000)) or over > _MAX_DENOMINATOR:
        return f"{cardinal(over)} out of {cardinal(under)}"
    name = {1: "over one", 2: "half", 4: "quarter"}.get(under) or ordinal(under).removeprefix("one ")
    if over == 1 or under == 1:
        return f"{cardinal(over)} {name}"
    return f"{cardinal(over)} {'halves' if under == 2 else name + 's'}"


def _mixed(sign: str, whole: str | None, over: int, under: int) -> str:
    part = fraction(over, under)
    return f"{sign_words(sign)}{integer(whole.strip(' -')) + ' and ' if whole else ''}{part}"


def _is_improper(match: re.Match[str]) -> bool:
    groups = match.groupdict()
    return "over" in groups and int(groups["over"]) > int(groups["under"])


def _unit(match: re.Match[str]) -> str:
    if not match["unit"]:
        return ""
    return f" {name_of(match['unit'], singular=not match['whole'] and not _is_improper(match))}"


def _stroke(match: re.Match[str]) -> str:
    said = _SET_PHRASES.get(match[0])
    return said or _mixed(match["sign"], match["whole"], int(match["over"]), int(match["under"])) + _unit(match)


def _vulgar(match: re.Match[str]) -> str:
    value = Fraction(numeric(match["part"])).limit_denominator(100)
    said = _mixed(match["sign"], match["whole"], value.numerator, value.denominator)
    return said.replace(" and one ", " and a ") + _unit(match)


_OPTIONAL_UNIT = rf"(?: ?(?P<unit>{SYMBOLS})(?![\w'^/\u00b2\u00b3])(?:\.(?=\s[a-z]))?)?"

RULES = (
    rule(
        rf"(?P<sign>{SIGN})(?<![\w./,])(?P<whole>[0-9]{{1,4}}[ -])?(?P<over>[0-9]{{1,4}})/(?P<under>[0-9]{{1,4}})"
        rf"(?:ths?|rds?|nds?)?(?![\w/]|[.,]\d){_OPTIONAL_UNIT}",
        _stroke,
        needs="/",
        at=At.numbers,
    ),
    rule(
        rf"(?P<sign>{SIGN})(?P<whole>[0-9]{{1,9}} ?)?(?P<part>[{VULGAR}]){_OPTIONAL_UNIT}",
        _vulgar,
        needs=VULGAR,
    ),
)
