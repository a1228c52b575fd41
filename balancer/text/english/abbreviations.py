"""Abbreviations with and without full stops, initials, and short forms."""

from __future__ import annotations

import re

from balancer.text.english.rules import GAP, At, rule

_TITLES = {
    "Mr": "Mister", "Mrs": "Missus", "Ms": "Miz", "Dr": "Doctor", "Prof": "Professor", "Rev": "Reverend",
    "Hon": "Honorable",
    "Gen": "General", "Col": "Colonel", "Lt": "Lieutenant", "Sgt": "Sergeant", "Capt": "Captain", "Cpt": "Captain",
    "Cmdr": "Commander",
    "Adm": "Admiral", "Maj": "Major", "Gov": "Governor", "Sen": "Senator", "Rep": "Representative", "Pres": "President",
    "Fr": "Father", "Sr": "Sister", "Mt": "Mount", "Ft": "Fort", "St": "Saint", "Mx": "Mix", "Messrs": "Messieurs",
}  # fmt: skip
_STREETS = {
    "St": "Street", "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road", "Dr": "Drive", "Ln": "Lane", "Ct": "Court",
    "Pl": "Place",
    "Sq": "Square", "Hwy": "Highway", "Pkwy": "Parkway", "Apt": "Apartment", "Ste": "Suite",
}  # fmt: skip
_ANYWHERE = {
    "e.g.": "for example", "eg.": "for example", "i.e.": "that is", "ie.": "that is", "etc.": "etcetera",
    "etc": "etcetera", "vs.": "versus",
    "vs": "versus", "approx.": "approximately", "est.": "established", "dept.": "department", "Dept.": "Department",
    "Inc.": "Incorporated",
    "Ltd.": "Limited", "Corp.": "Corporation", "Co.": "Company", "Bros.": "Brothers", "Jr.": "Junior",
    "Jr": "Junior", "Sr.": "Senior",
    "a.k.a.": "also known as", "aka": "also known as", "w/o": "without", "w/": "with ", "b/c": "because",
    "ca.": "circa", "cf.": "compare",
    "al.": "al", "viz.": "namely", "Univ.": "University", "govt.": "government", "Govt.": "Government",
    "misc.": "miscellaneous",
    "temp.": "temperature", "min.": "minutes", "max.": "maximum", "incl.": "including", "excl.": "excluding",
    "tel.": "telephone",
    "Tel.": "Telephone", "ext.": "extension", "Ext.": "Extension", "orig.": "original", "ed.": "edition",
    "P.S.": "P S", "p.s.": "P S",
    "N.B.": "N B", "cont.": "continued", "asst.": "assistant", "mgr.": "manager", "mgmt.": "management",
    "Esq.": "Esquire",
}  # fmt: skip
_NUMBERED = {
    "No": "number", "no": "number", "Nos": "numbers", "nos": "numbers", "Fig": "Figure", "fig": "figure",
    "Figs": "Figures", "figs": "figures",
    "Vol": "Volume", "vol": "volume", "Vols": "Volumes", "Ch": "Chapter", "ch": "chapter", "Chap": "Chapter",
    "chap": "chapter", "p": "page",
    "pp": "pages", "P": "page", "Pp": "pages", "pg": "page", "Sec": "Section", "sec": "section", "Eq": "Equation",
    "eq": "equation",
    "Art": "Article", "art": "article", "Tab": "Table", "App": "Appendix", "Nr": "number", "nr": "number",
    "ext": "extension",
    "Rm": "Room", "rm": "room", "Apt": "Apartment", "apt": "apartment", "Ste": "Suite", "Ver": "Version",
    "ver": "version", "Pt": "Part",
    "v": "volume", "n": "number", "ch.": "chapter", "Ex": "Example", "ex": "example", "para": "paragraph",
    "Para": "Paragraph", "l": "line",
}  # fmt: skip
_UNITS = {
    "ft": "feet", "in": "inches", "lbs": "pounds", "lb": "pounds", "oz": "ounces", "yd": "yards", "yds": "yards",
    "mi": "miles",
    "hrs": "hours", "hr": "hours", "min": "minutes", "mins": "minutes", "sec": "seconds", "secs": "seconds",
    "gal": "gallons",
    "qt": "quarts", "pt": "pints", "tsp": "teaspoons", "tbsp": "tablespoons", "yrs": "years", "mos": "months",
    "wks": "weeks", "km": "kilometers", "cm": "centimeters", "mm": "millimeters", "kg": "kilograms",
}  # fmt: skip
_SINGULAR = {"feet": "foot", "inches": "inch"}
_DEGREES = {
    "Ph.D.": "P H D",
    "PhD": "P H D",
    "Ph.D": "P H D",
    "M.D.": "M D",
    "B.A.": "B A",
    "M.A.": "M A",
    "B.Sc.": "B S C",
    "M.Sc.": "M S C",
}

_SENTENCE_GOES_ON = frozenset(["e.g.", "i.e.", "vs.", "approx.", "cf.", "ca.", "al.", "eg.", "ie."])


def _full_stop(match: re.Match[str]) -> str:
    """The full stop of an abbreviation, where it ends the sentence, too."""
    if not match[0].endswith(".") or match[0] in _SENTENCE_GOES_ON:
        return ""
    following = match.string[match.end() : match.end() + 40]
    if not following.strip() or following.startswith("\n"):
        return "."
    return "." if re.match(r"[\"')]?\s+[A-Z][a-z]*\b", following) else ""


def _anywhere(match: re.Match[str]) -> str:
    said = _ANYWHERE[match[0]]
    comma = (
        "," if match[0] in ("e.g.", "i.e.", "eg.", "ie.") and match.string[match.end() : match.end() + 1] == " " else ""
    )
    return said + comma + _full_stop(match)


def _degree(match: re.Match[str]) -> str:
    return _DEGREES[match[0]] + _full_stop(match)


def _numbered(match: re.Match[str]) -> str:
    return f"{_NUMBERED[match[1]]} "


def _unit(match: re.Match[str]) -> str:
    number, name = match[1], _UNITS[match[2]]
    if number == "1":
        name = _SINGULAR.get(name, name.removesuffix("s"))
    following = match.string[match.end() : match.end() + 1]
    return f"{number} {name}{'.' if not following else ''}"


def _initials(match: re.Match[str]) -> str:
    following = match.string[match.end() :]
    letters = " ".join(re.findall(r"[A-Za-z]", match[0])).upper()
    return letters + ("." if not following.strip() or following.startswith("\n") else "")


def _alternatives(words: dict[str, str]) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


ADDRESS_RULES = (
    rule(
        rf"(?<=[a-z0-9] )({_alternatives(_STREETS)})\.(?=[ ,;]|$)(?! [A-Z][a-z])",
        lambda match: _STREETS[match[1]],
        at=At.capitals,
    ),
    rule(r"(?<=[a-z] )(St|Ave|Blvd|Rd|Hwy|Pkwy)(?=[,.;]|$)", lambda match: _STREETS[match[1]], at=At.capitals),
)
BEFORE_NUMBERS = (
    rule(rf"\b({_alternatives(_NUMBERED)})\. ?(?=\d)", _numbered, needs=re.compile(r"\. ?\d")),
    rule(rf"\b({_alternatives(_NUMBERED)})\. ?(?=[IVX]{{2,7}}\b|[VX]\b)", _numbered, needs=re.compile(r"\. ?[IVX]")),
    rule(r"\u2116 ?", "number ", needs="\u2116"),
    rule(r"\u00a7\u00a7? ?(?=\d)", "section ", needs="\u00a7"),
    rule(
        rf"(?<![\w./])([0-9]+(?:[.,][0-9]+)?) ?({_alternatives(_UNITS)})\.(?![\w])", _unit, at=At.numbers, abridges=True
    ),
)
RULES = (
    *ADDRESS_RULES,
    rule(
        r"\b(Jr|Sr)\.?(?=[, ]|$)(?<=[a-z] [JS]r\.)",
        lambda match: {"Jr": "Junior", "Sr": "Senior"}[match[1]],
        at=At.capitals,
    ),
    rule(
        rf"\b(DR|MR|MRS|MS|PROF|GEN|ST)\.(?={GAP}[A-Z])",
        lambda match: _TITLES[match[1].capitalize()].upper(),
        at=At.capitals,
    ),
    rule(
        rf"\b({_alternatives(_TITLES)})\.(?={GAP}(?:[^\W\d_a-z]|(?:and|&)\s))",
        lambda match: _TITLES[match[1]],
        at=At.capitals,
    ),
    rule(rf"\b(Mr|Mrs|Ms|Dr|Prof)(?={GAP}[A-Z][a-z])", lambda match: _TITLES[match[1]], at=At.capitals),
    rule(rf"(?<![\w.])(?:{_alternatives(_DEGREES)})(?!\w)", _degree, at=At.capitals),
    rule(rf"(?<![\w./])(?:{_alternatives(_ANYWHERE)})(?![\w.])", _anywhere, needs=tuple(_ANYWHERE)),
    rule(
        r"(?<![\w.])(?:[A-Za-z]\.){2,10}(?!\w)|(?<![\w.])(?:[A-Z]\.){1,9}[A-Z](?![\w.])",
        _initials,
        needs=re.compile(r"\.[A-Za-z]"),
    ),
    rule(r"(?<![\w.])([A-Z])\.(?=\s?[A-Z]\.)", r"\1", at=At.capitals),
    rule(
        r"(?<=[A-Z][a-z] )([A-Z])\.(?= [A-Z][a-z])|(?<=[a-z] )([B-HJ-Z])\.(?= [A-Z][a-z]+\b)(?<=[A-Z][a-z]{2} [A-Z]\.)",
        lambda match: match[0][0],
        at=At.capitals,
    ),
    rule(
        r"(?:(?<=^)|(?<=[A-Z] )|(?<=[A-Z][a-z]{2} )|(?<=[A-Z][a-z]{3} )|(?<=[A-Z][a-z]{4} )|(?<=[A-Z][a-z]{5} ))"
        r"([A-Z])\.(?<![AP] M\.)(?=\s[A-Z][a-z])",
        r"\1",
        at=At.capitals,
    ),
    rule(r"\b(How|What|Where|Who|When|Why)'?re\b(?<='re)", r"\1 are", flags=re.IGNORECASE, needs=("'re", "'RE")),
)
