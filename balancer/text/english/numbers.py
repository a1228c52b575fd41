"""Numbers in all their other forms: versions, fractions, powers, ratios, ranges, ordinals, years, large ones, and plain ones."""

from __future__ import annotations

import re
from fractions import Fraction
from unicodedata import normalize, numeric

from balancer.text.english.cardinals import (
    NUMBER,
    cardinal,
    digit_by_digit,
    integer,
    number,
    ordinal,
    parts,
    year,
)
from balancer.text.english.rules import rule
from balancer.text.english.signs import BOUNDARY, SIGN, sign_words

_SUPERSCRIPTS = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b\u207a"
_SUBSCRIPTS = "\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089"
_VULGAR = "\u00bc\u00bd\u00be\u2150\u2151\u2152\u2153\u2154\u2155\u2156\u2157\u2158\u2159\u215a\u215b\u215c\u215d\u215e\u2189"
_MAX_DENOMINATOR = 20
"""Fractions of smaller parts are said as one number out of, or over, another."""
_SET_PHRASES = {"24/7": "twenty-four seven", "9/11": "nine eleven", "50/50": "fifty fifty", "20/20": "twenty twenty"}

_OPERATORS = {
    "+": "plus", "-": "minus", "\u2212": "minus", "*": "times", "\u00d7": "times", "x": "times", "\u00f7": "divided by", "/": "divided by",
    "=": "equals", "^": "to the power of",
}  # fmt: skip
_COMPARED = {"<": "less than", ">": "greater than", "<=": "less than or equal to", ">=": "greater than or equal to", "~": "about", "\u2248": "about", "~=": "about",
             "\u2264": "less than or equal to",
             "\u2265": "greater than or equal to"}  # fmt: skip


def fraction(over: int, under: int) -> str:
    """`3/4`: three quarters."""
    if under == 0 or over > under or (over == under and under > 1):
        return f"{cardinal(over)} {'out of' if over == under else 'over'} {cardinal(under)}"
    if under > _MAX_DENOMINATOR and under not in (32, 50, 64, 100, 1000) or over > _MAX_DENOMINATOR:
        return f"{cardinal(over)} out of {cardinal(under)}"
    name = {1: "over one", 2: "half", 4: "quarter"}.get(under) or ordinal(under)
    if over == 1 or under == 1:
        return f"{cardinal(over)} {name}"
    return f"{cardinal(over)} {'halves' if under == 2 else name + 's'}"


def _stroke(match: re.Match[str]) -> str:
    if match[0] in _SET_PHRASES:
        return _SET_PHRASES[match[0]]
    said = fraction(int(match["over"]), int(match["under"]))
    whole = match["whole"]
    return f"{sign_words(match['sign'])}{integer(whole.strip()) + ' and ' if whole else ''}{said}"


def _vulgar(match: re.Match[str]) -> str:
    value = Fraction(numeric(match[3])).limit_denominator(100)
    said = fraction(value.numerator, value.denominator)
    if not match[2]:
        return sign_words(match[1]) + said
    said = said.replace("one half", "a half").replace("one quarter", "a quarter")
    return f"{sign_words(match[1])}{integer(match[2])} and {said}"


def _power(exponent: str) -> str:
    written = normalize("NFKC", exponent).replace("\u2212", "-").strip("^()")
    if written in ("2", "3"):
        return " squared" if written == "2" else " cubed"
    sign = "minus " if written.startswith("-") else ""
    return f" to the power of {sign}{integer(written.lstrip('+-') or '0')}"


def _version(match: re.Match[str]) -> str:
    prefix = "version " if match[1] else ""
    return prefix + " point ".join(map(integer, match[2].split(".")))


def _decimal_version(match: re.Match[str]) -> str:
    return f"{'version ' if match[1] else ''}{' point '.join(map(integer, match[2].split('.')))}"


def _scaled(match: re.Match[str]) -> str:
    scale = {"k": "thousand", "m": "million", "b": "billion", "t": "trillion", "bn": "billion", "mn": "million"}[match["scale"].lower()]
    first = f"{number(match['first'])} to " if match["first"] else ""
    return f"{sign_words(match['sign'])}{first}{number(match['number'])} {scale}"


def _ordinal(match: re.Match[str]) -> str:
    return ordinal(int("".join(parts(match[1]))))


def _range(match: re.Match[str]) -> str:
    second = sign_words(match["second_sign"])
    return f"{sign_words(match['sign'])}{_plain(match['first'])} to {second}{_plain(match['number'])}"


def _scientific(match: re.Match[str]) -> str:
    sign = "minus " if match["exponent_sign"] == "-" else ""
    return f"{sign_words(match['sign'])}{number(match['number'])} times ten to the power of {sign}{integer(match['exponent'])}"


def _plain(written: str) -> str:
    if re.fullmatch(r"1[1-9]\d\d|20\d\d", written):
        return year(int(written))
    return number(written)


_YEAR = r"(?:1[1-9]|20)[0-9]{2}"
_NOT_COUNTED = r"(?:is|was|has|his|its|this|as|us|does|yes|plus|always|across|thus|says|sales|series|news|elections)"


def _signed(match: re.Match[str]) -> str:
    return f"{sign_words(match['sign'])}{number(match['number'])}"


def _operation(match: re.Match[str]) -> str:
    return f" {_OPERATORS[match[1]]} "


def _behind_letters(digits: str) -> str:
    return digit_by_digit(digits) if len(digits) > 4 else integer(digits)


RULES = (
    rule(r"(?<![\w.])([vV]\.? ?)?([0-9]{1,8}(?:\.[0-9]{1,8}){2,8})(?![\w]|[.,]\d)(?!-\d)", _version, needs="."),
    rule(r"\b([vV]\.? ?)([0-9]{1,8}(?:\.[0-9]{1,8})?)(?![\w]|[.,]\d)", _decimal_version, needs="vV"),
    rule(
        rf"(?P<sign>{SIGN}){BOUNDARY}(?P<number>{NUMBER})(?:[eE]|\s?[x\u00d7*]\s?10\^)(?P<exponent_sign>[-+]?)(?P<exponent>[0-9]{{1,4}})(?!\w)",
        _scientific,
        needs="eE^",
    ),
    rule(
        rf"(?P<sign>{SIGN})(?<![\w./,])(?P<whole>[0-9]{{1,4}}[ -])?(?P<over>[0-9]{{1,4}})/(?P<under>[0-9]{{1,4}})(?:ths?|rds?|nds?)?(?![\w/]|[.,]\d)",
        _stroke,
        needs="/",
    ),
    rule(rf"({SIGN})([0-9]{{1,9}})?\s?([{_VULGAR}])", _vulgar, needs=_VULGAR),
    rule(rf"(?<=[\w)])[{_SUPERSCRIPTS}]{{1,6}}", lambda match: _power(match[0]), needs=_SUPERSCRIPTS),
    rule(r"(?<=[\w)])\^\(?[-\u2212]?[0-9]{1,6}\)?", lambda match: _power(match[0]), needs="^"),
    rule(r"(?<=[\w)])\^(?=[a-z]\b)", " to the power of ", needs="^"),
    rule(rf"[{_SUBSCRIPTS}]{{1,6}}", lambda match: f" {integer(normalize('NFKC', match[0]))} ", needs=_SUBSCRIPTS),
    rule(rf"[{_SUPERSCRIPTS}]{{1,6}}", lambda match: f" {integer(re.sub('[^0-9]', '', normalize('NFKC', match[0])) or '0')} ",
         needs=_SUPERSCRIPTS),
    rule(
        rf"(?<![\w.,:])({NUMBER}):({NUMBER})(?![\w:]|[.,]\d)",
        lambda match: f"{number(match[1])} to {number(match[2])}",
        needs=":",
    ),
    rule(
        rf"(?<![\w.,])([0-9]{{1,6}})\s?[x\u00d7]\s?([0-9]{{1,6}})(?:\s?[x\u00d7]\s?([0-9]{{1,6}}))?(?![\w]|[.,]\d)",
        lambda match: " by ".join(number(group) for group in match.groups() if group),
        needs="x\u00d7",
    ),
    rule(
        rf"{BOUNDARY}(?:(?P<first>{NUMBER})[-\u2013])?(?P<number>{NUMBER})\s?[x\u00d7](?![\w])",
        lambda match: f"{number(match['first']) + ' to ' if match['first'] else ''}{number(match['number'])} times",
        needs="x\u00d7",
    ),
    rule(rf"{BOUNDARY}([0-9]{{1,3}}(?:,[0-9]{{3}}){{1,4}}|[0-9]{{1,12}})(?:st|nd|rd|th|ST|ND|RD|TH)\b", _ordinal, needs="0"),
    rule(
        rf"(?P<sign>{SIGN}){BOUNDARY}(?:(?P<first>{NUMBER})\s?[-\u2013]\s?)?(?P<number>{NUMBER})(?P<scale>[kKmMbBtT]|bn|mn)(?![\w])",
        _scaled,
        needs="0",
    ),
    rule(r"(?<![\w&])#\s?(?=\d)", "number ", needs="#"),
    rule(rf"(?<!\w)([<>~\u2248\u2264\u2265]=?)\s?(?=[-+.$]?\d)", lambda match: f"{_COMPARED.get(match[1], 'about')} ", needs="<>~\u2248\u2264\u2265"),
    rule(
        rf"{BOUNDARY}(?P<sign>{SIGN})(?P<first>{NUMBER})(?:[-\u2013]|\s[-\u2013]\s)(?P<second_sign>-?)(?P<number>{NUMBER})(?![\w]|-\d)(?!\s?[=*/\u00d7\u00f7])",
        _range,
        needs="-\u2013",
    ),
    rule(r"(?<=\d)\s?([+*\u00d7\u00f7=^])\s?(?=[-+]?[\d(])", _operation, needs="+*\u00d7\u00f7=^"),
    rule(r"(?<=\d)\s([-\u2212/])\s(?=[\d(])", _operation, needs="-\u2212/"),
    rule(r"(?<=\d)-(?=\d)", " to ", needs="-"),
    rule(
        rf"(?<![\w.,-])({_YEAR})(?![\w,]|[.:]\d|-\d)(?!,\d)(?! (?!{_NOT_COUNTED}\b)(?:[a-z]{{2,20}}s|people|men|women|children|of)\b)",
        lambda match: year(int(match[1])),
        needs="0",
    ),
    rule(rf"(?P<sign>{SIGN})(?<![\w])(?P<number>{NUMBER})(?!\w)", _signed, needs="0"),
    rule(r"(?<=[A-Za-z])-?([0-9]{1,40})(?=[A-Za-z])", lambda match: f" {integer(match[1])} ", needs="0"),
    rule(r"(?<=[^\W\d_])-?([0-9]{1,40})", lambda match: f" {_behind_letters(match[1])}", needs="0"),
    rule(r"([0-9]{1,40})-?(?=[^\W\d_])", lambda match: f"{integer(match[1])} ", needs="0"),
    rule(r"[0-9]{1,40}", lambda match: f" {integer(match[0])} ", needs="0"),
)

