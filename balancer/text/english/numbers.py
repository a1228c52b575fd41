"""Numbers in all their other forms: versions, powers, ratios, ranges, ordinals, years, large ones, and plain ones."""

from __future__ import annotations

import re
from unicodedata import normalize

from balancer.text.english.cardinals import (
    NUMBER,
    digit_by_digit,
    integer,
    number,
    ordinal,
    parts,
    year,
)
from balancer.text.english.rules import At, rule
from balancer.text.english.signs import BOUNDARY, SIGN, sign_words
from balancer.text.guard import NUMBER_WORDS

_SUPERSCRIPTS = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b\u207a"
_SUBSCRIPTS = "\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089"

MAX_COUNTED_DIGITS = 6
"""Numbers in a chain with more digits together are said digit by digit."""

_OPERATORS = {
    "+": "plus",
    "-": "minus",
    "\u2212": "minus",
    "*": "times",
    "\u00d7": "times",
    "x": "times",
    "\u00f7": "divided by",
    "/": "divided by",
    "=": "equals",
    "^": "to the power of",
}
_COMPARED = {
    "<": "less than",
    ">": "greater than",
    "<=": "less than or equal to",
    ">=": "greater than or equal to",
    "~": "about",
    "\u2248": "about",
    "~=": "about",
    "\u2264": "less than or equal to",
    "\u2265": "greater than or equal to",
}


def _power(exponent: str) -> str:
    written = normalize("NFKC", exponent).replace("\u2212", "-").strip("^()")
    if written in ("2", "3"):
        return " squared" if written == "2" else " cubed"
    sign = "minus " if written.startswith("-") else ""
    return f" to the power of {sign}{integer(written.lstrip('+-') or '0')}"


def _version(match: re.Match[str]) -> str | None:
    if not match[1] and _GROUPS.fullmatch(match[2]):
        return None
    prefix = "version " if match[1] else ""
    return prefix + " point ".join(map(integer, match[2].split(".")))


def _decimal_version(match: re.Match[str]) -> str:
    return f"{'version ' if match[1] else ''}{' point '.join(map(integer, match[2].split('.')))}"


def _scaled(match: re.Match[str]) -> str:
    scale = {"k": "thousand", "m": "million", "b": "billion", "t": "trillion", "bn": "billion", "mn": "million"}[
        match["scale"].lower()
    ]
    first = f"{number(match['first'])} to " if match["first"] else ""
    return f"{sign_words(match['sign'])}{first}{number(match['number'])} {scale}"


def _ordinal(match: re.Match[str]) -> str:
    return ordinal(int("".join(parts(match[1]))))


def _range(match: re.Match[str]) -> str:
    second = sign_words(match["second_sign"])
    return f"{sign_words(match['sign'])}{_plain(match['first'])} to {second}{_plain(match['number'])}"


def _scientific(match: re.Match[str]) -> str:
    sign = "minus " if match["exponent_sign"] == "-" else ""
    power = f"ten to the power of {sign}{integer(match['exponent'])}"
    return f"{sign_words(match['sign'])}{number(match['number'])} times {power}"


def _plain(written: str) -> str:
    if re.fullmatch(r"1[1-9]\d\d|20\d\d", written):
        return year(int(written))
    return number(written)


_GROUPS = re.compile(r"[1-9][0-9]{0,2}(?:\.[0-9]{3}){2,}")
_YEAR = r"(?:1[1-9]|20)[0-9]{2}"
_NOT_COUNTED = r"(?:is|was|has|his|its|this|as|us|does|yes|plus|always|across|thus|says|sales|series|news|elections)"


def _signed(match: re.Match[str]) -> str:
    return f"{sign_words(match['sign'])}{number(match['number'])}"


def _chain(match: re.Match[str]) -> str:
    """Several numbers with hyphens: one by one, or as an account's if they are long."""
    groups = match[0].split("-")
    if sum(map(len, groups)) > MAX_COUNTED_DIGITS:
        return ", ".join(map(digit_by_digit, groups))
    return " ".join(map(integer, groups))


def _operation(match: re.Match[str]) -> str:
    return f" {_OPERATORS[match[1]]} "


def _behind_letters(digits: str) -> str:
    return digit_by_digit(digits) if len(digits) > 4 else integer(digits)


COMPARISONS = (
    rule(
        r"(?<!\w)([<>~\u2248\u2264\u2265]=?)\s?(?=[-+.$]?\d)",
        lambda match: f"{_COMPARED.get(match[1], 'about')} ",
        needs="<>~\u2248\u2264\u2265",
    ),
)
RULES = (
    rule(r"(?<![\w.])([vV]\.? ?)?([0-9]{1,8}(?:\.[0-9]{1,8}){2,8})(?![\w]|[.,]\d)(?!-\d)", _version, needs="."),
    rule(r"\b([vV]\.? ?)([0-9]{1,8}(?:\.[0-9]{1,8})?)(?![\w]|[.,]\d)", _decimal_version, needs="vV"),
    rule(
        rf"(?P<sign>{SIGN}){BOUNDARY}(?P<number>{NUMBER})(?:[eE]|\s?[x\u00d7*]\s?10\^)(?P<exponent_sign>[-+]?)(?P<exponent>[0-9]{{1,4}})(?!\w)",
        _scientific,
        needs="eE^",
        at=At.numbers,
    ),
    rule(rf"(?<=[\w)])[{_SUPERSCRIPTS}]{{1,6}}", lambda match: _power(match[0]), needs=_SUPERSCRIPTS),
    rule(r"(?<=[\w)])\^\(?[-\u2212]?[0-9]{1,6}\)?", lambda match: _power(match[0]), needs="^"),
    rule(r"(?<=[\w)])\^(?=[a-z]\b)", " to the power of ", needs="^"),
    rule(rf"[{_SUBSCRIPTS}]{{1,6}}", lambda match: f" {integer(normalize('NFKC', match[0]))} ", needs=_SUBSCRIPTS),
    rule(
        rf"[{_SUPERSCRIPTS}]{{1,6}}",
        lambda match: f" {integer(re.sub('[^0-9]', '', normalize('NFKC', match[0])) or '0')} ",
        needs=_SUPERSCRIPTS,
    ),
    rule(
        rf"(?<![\w.,:])({NUMBER}):({NUMBER})(?![\w:]|[.,]\d)",
        lambda match: f"{number(match[1])} to {number(match[2])}",
        needs=":",
        at=At.numbers,
    ),
    rule(
        r"(?<![\w.,])([0-9]{1,6})\s?[x\u00d7]\s?([0-9]{1,6})(?:\s?[x\u00d7]\s?([0-9]{1,6}))?(?![\w]|[.,]\d)",
        lambda match: " by ".join(number(group) for group in match.groups() if group),
        needs="x\u00d7",
        at=At.numbers,
    ),
    rule(
        rf"{BOUNDARY}(?:(?P<first>{NUMBER})[-\u2013])?(?P<number>{NUMBER})\s?[x\u00d7](?![\w])",
        lambda match: f"{number(match['first']) + ' to ' if match['first'] else ''}{number(match['number'])} times",
        needs="x\u00d7",
        at=At.numbers,
    ),
    rule(
        rf"{BOUNDARY}([0-9]{{1,3}}(?:,[0-9]{{3}}){{1,4}}|[0-9]{{1,12}})(?:st|nd|rd|th|ST|ND|RD|TH)\b",
        _ordinal,
        at=At.numbers,
    ),
    rule(
        rf"(?P<sign>{SIGN}){BOUNDARY}(?:(?P<first>{NUMBER})\s?[-\u2013]\s?)?(?P<number>{NUMBER})(?P<scale>[kKmMbBtT]|bn|mn)(?![\w])",
        _scaled,
        at=At.numbers,
    ),
    rule(
        r"(?<![\w.,-])[0-9]{1,6}(?:-[0-9]{1,6}){2,8}(?![\w]|[.,-]\d)",
        _chain,
        needs="-",
        at=At.numbers,
    ),
    rule(
        r"(?<![\w.,])[0-9]{1,2}(?:,[0-9]{1,2}){2,30}(?![\w]|[.,]\d)",
        lambda match: ", ".join(map(integer, match[0].split(","))),
        needs=",",
        at=At.numbers,
    ),
    rule(r"(?<![\w&])#\s?(?=\d)", "number ", needs="#"),
    rule(
        rf"{BOUNDARY}(?P<sign>{SIGN})(?P<first>{NUMBER})(?:[-\u2013]|\s[-\u2013]\s)(?P<second_sign>-?)(?P<number>{NUMBER})(?![\w]|-\d)(?!\s?[=*/\u00d7\u00f7])",
        _range,
        needs="-\u2013",
        at=At.numbers,
    ),
    rule(r"(?<=\d)\s?([+*\u00d7\u00f7=^])\s?(?=[-+]?[\d(])", _operation, needs="+*\u00d7\u00f7=^"),
    rule(r"(?<=\d)\s([-\u2212/])\s(?=[\d(])", _operation, needs="-\u2212/"),
    rule(r"(?<=\d)-(?=\d)", " to ", needs="-"),
    rule(
        rf"(?<![\w.,-])({_YEAR})(?![\w]|[.:,]\d|-\d)"
        rf"(?! (?!{_NOT_COUNTED}\b)(?:[a-z]{{2,20}}s|people|men|women|children|of)\b)",
        lambda match: year(int(match[1])),
        at=At.numbers,
    ),
    rule(rf"(?P<sign>{SIGN})(?<![\w])(?P<number>{NUMBER})(?!\w)", _signed, at=At.numbers),
    rule(r"(?<=[A-Za-z])-?([0-9]{1,40})(?=[A-Za-z])", lambda match: f" {integer(match[1])} ", at=At.numbers),
    rule(r"(?<=[^\W\d_])-?([0-9]{1,40})", lambda match: f" {_behind_letters(match[1])}", at=At.numbers),
    rule(r"([0-9]{1,40})-?(?=[^\W\d_])", lambda match: f"{integer(match[1])} ", at=At.numbers),
    rule(r"[0-9]{1,40}", lambda match: f" {integer(match[0])} ", at=At.numbers),
    rule(  # the sign of a time, a date, or whatever else has become words without it
        rf"(?<![\w.)\]%\u00b0])([-\u00b1])"
        rf"(?=[$\u20ac\u00a3\u00a5]?\s?(?:the |[a-z]+ )?(?:{'|'.join(sorted(NUMBER_WORDS))})\b)",
        lambda match: sign_words(match[1]),
        needs="-\u00b1",
        flags=re.IGNORECASE,
    ),
)
