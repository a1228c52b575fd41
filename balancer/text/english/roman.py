"""Roman numerals: behind the words that are counted with them, behind rulers' names, and before `century`."""

from __future__ import annotations

import re

from balancer.text.english.cardinals import cardinal, ordinal, year
from balancer.text.english.rules import At, rule

_VALUES = {"M": 1000, "D": 500, "C": 100, "L": 50, "X": 10, "V": 5, "I": 1}
_CANONICAL = re.compile(r"M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})")
_COUNTED = (
    "Act Appendix Apollo Article Book Bowl Canto Category Chapter Chapters Class Division Episode Fantasy "
    "Figure GTA Grade Group Item "
    "Lesson Level Mark Model Module Number Olympiad Page Part Parts Phase Photo Rocky Round Scene Schedule "
    "Season Section Sections Series "
    "Stage Step Table Tier Title Type Unit Verse Version Volume Volumes War Wars Windows"
).split()
_RULERS = (
    "Adrian Albert Alexander Alfonso Amadeus Baldwin Benedict Boniface Carlos Catherine Charles Christian "
    "Clement Constantine Darius David "
    "Edward Elizabeth Emanuel Emmanuel Felipe Ferdinand Francis Frederick Frederik Georg George Gregory Gustav "
    "Haakon Harald Henri Henry "
    "Innocent Isabella Ivan James Joao John Joseph Julius Karl Leo Leopold Louis Ludwig Manuel Margaret "
    "Margrethe Martin Mary "
    "Maximilian Mehmed Menelik Michael Mohammed Murad Napoleon Nicholas Olaf Olav Oscar Otto Paul Pedro Peter "
    "Philip Philippe Pius Ptolemy "
    "Rainier Rama Rameses Ramses Richard Robert Rudolf Selim Sigismund Sixtus Stephen Theodore Thutmose Umberto "
    "Urban Valdemar Victor "
    "Vittorio Wilhelm Willem William Xerxes Zog"
).split()
_NUMERAL = r"(?P<numeral>[IVXLCDM]{1,12})"
_END = r"(?![\w'.-]\w|\w)"


def roman(numeral: str) -> int | None:
    """The value of a numeral that is written correctly; None for another word."""
    if not numeral or not _CANONICAL.fullmatch(numeral):
        return None
    values = [_VALUES[letter] for letter in numeral]
    return sum(
        -value if value < following else value for value, following in zip(values, [*values[1:], 0], strict=True)
    )


def _cardinal(match: re.Match[str]) -> str | None:
    value = roman(match["numeral"])
    return None if value is None else f"{match['before']} {cardinal(value)}"


def _numbered(match: re.Match[str]) -> str | None:
    value = roman(match["numeral"])
    return None if value is None else cardinal(value)


def _list(match: re.Match[str]) -> str | None:
    first, last = roman(match["first"]), roman(match["numeral"])
    if first is None or last is None or (match["numeral"] == "I" and re.match(r" [a-z]", match.string[match.end() :])):
        return None
    joint = match["joint"]
    return (
        f"{match['before']} {cardinal(first)}{' to ' if joint.strip() in ('-', chr(8211)) else joint}{cardinal(last)}"
    )


def _year(match: re.Match[str]) -> str | None:
    value = roman(match["numeral"])
    return None if value is None else year(value)


def _ruler(match: re.Match[str]) -> str | None:
    value = roman(match["numeral"])
    return None if value is None else f"{match['before']} the {ordinal(value)}"


def _century(match: re.Match[str]) -> str | None:
    value = roman(match["numeral"])
    return None if value is None else f"{ordinal(value)} {match['behind']}"


_KINDS = "|".join(f"[{word[0]}{word[0].lower()}]{word[1:]}" for word in _COUNTED)
_NAMES = f"(?:{'|'.join(_RULERS)})"
_TITLES = "King|Queen|Pope|Emperor|Empress|Tsar|Czar|Sultan|Prince|Pharaoh|Kaiser"

_HINT = re.compile(
    r"(?<=[A-Za-z] )(?:[IVXLCDM]{2,12}|[VX]|I(?=[.,:;)\n-]|$|'s| (?:and|or|to) [A-Z]| \u2014))(?![A-Za-z])"
)

RULES = (
    rule(r"\b(World War) I\b", r"\1 one", needs=("World War I",)),
    rule(r"(?=M[MDCLXVI]{3,11}\b)(?<!\w)(?P<before>)(?P<numeral>[MDCLXVI]{4,12})\b", _year, at=At.capitals),
    rule(rf"(?<!\w){_NUMERAL}(?:th)? (?P<behind>[Cc]entur(?:y|ies))\b", _century, needs=("entur",), at=At.capitals),
    rule(
        rf"\b(?P<before>{_KINDS}) (?P<first>[IVXLCDM]{{1,12}})(?P<joint> and | or | to |, | ?[-\u2013] "
        rf"?){_NUMERAL}{_END}",
        _list,
        needs=_HINT,
    ),
    rule(rf"\b(?P<before>{_KINDS}) {_NUMERAL}{_END}(?<! I)(?<! [CDLM])", _cardinal, needs=_HINT),
    rule(rf"\b(?P<before>{_KINDS}) {_NUMERAL}(?=[.,:;)\n]|$| \u2014| (?:and|or|to) [A-Z])", _cardinal, needs=_HINT),
    rule(rf"\b(?P<before>{_NAMES}) {_NUMERAL}{_END}(?<! I)(?<! [CDLM])", _ruler, needs=_HINT, at=At.capitals),
    rule(rf"\b(?P<before>{_NAMES}) {_NUMERAL}(?=[.,:;)\n]|$|'s)(?<! [CDLM])", _ruler, needs=_HINT, at=At.capitals),
    rule(
        rf"\b(?P<before>(?:{_TITLES}) [A-Z][a-z]{{2,20}}(?: [A-Z][a-z]{{2,20}})?) {_NUMERAL}{_END}(?<! [CDLM])",
        _ruler,
        at=At.capitals,
    ),
    rule(
        rf"\b(?P<before>[A-Z][A-Za-z]{{1,20}}) (?P<numeral>[IVX]{{2,7}}){_END}", _cardinal, needs=_HINT, at=At.capitals
    ),
    rule(r"(?<![^\n])(?P<before>)(?P<numeral>[IVX]{2,7})(?=\.)", _numbered, at=At.capitals),
)
