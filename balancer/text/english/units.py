"""Quantities with units: degrees, lengths, weights, rates such as km/h, squares, feet and inches, durations."""

from __future__ import annotations

import re

from balancer.text.english.cardinals import NUMBER, cardinal, is_one, number
from balancer.text.english.rules import At, rule
from balancer.text.english.signs import BOUNDARY, SIGN, sign_words

_METRIC_PREFIXES = {"k": "kilo", "c": "centi", "m": "milli", "\u03bc": "micro", "u": "micro", "n": "nano"}


def _metric(symbol: str, name: str, prefixes: str) -> dict[str, tuple[str, str]]:
    """A unit with some of the metric prefixes."""
    names = {symbol: (name, f"{name}s")}
    for prefix in prefixes:
        said = _METRIC_PREFIXES[prefix] + name
        names[prefix + symbol] = (said, f"{said}s")
    return names


def _same(name: str) -> tuple[str, str]:
    return (name, name)


_COMPASS = {"N": "north", "S": "south", "E": "east", "W": "west"}


def _same_degrees(name: str) -> tuple[str, str]:
    return (f"degree {name}", f"degrees {name}")


def _bytes() -> dict[str, tuple[str, str]]:
    names = {}
    for letter, prefix in {"k": "kilo", "K": "kilo", "M": "mega", "G": "giga", "T": "tera", "P": "peta"}.items():
        for symbol, name in (("B", "byte"), ("b", "bit"), ("bit", "bit"), ("iB", f"{prefix[:2]}bibyte")):
            said = name if symbol == "iB" else prefix + name
            names[letter + symbol] = (said, f"{said}s")
        if letter != "K":
            names[f"{letter}bps"] = (f"{prefix}bit per second", f"{prefix}bits per second")
    return names


UNITS: dict[str, tuple[str, str]] = {
    **_metric("m", "meter", "kcm\u03bcun"),
    **_metric("g", "gram", "km\u03bcu"),
    **_metric("l", "liter", "cm\u03bc"),
    **_metric("L", "liter", "m\u03bc"),
    **_metric("s", "second", "m\u03bcn"),
    **_metric("W", "watt", "km"),
    **_metric("V", "volt", "km"),
    **_metric("J", "joule", "k"),
    **_metric("Pa", "pascal", "k"),
    **_metric("\u03a9", "ohm", "k"),
    **_metric("Wh", "watt hour", "k"),
    **_metric("N", "newton", "k"),
    **_bytes(),
    "dl": ("deciliter", "deciliters"),
    "hPa": ("hectopascal", "hectopascals"),
    "MW": ("megawatt", "megawatts"),
    "GW": ("gigawatt", "gigawatts"),
    "MWh": ("megawatt hour", "megawatt hours"),
    "GWh": ("gigawatt hour", "gigawatt hours"),
    "MJ": ("megajoule", "megajoules"),
    "mA": ("milliampere", "milliamperes"),
    "mAh": ("milliampere hour", "milliampere hours"),
    "Ah": ("ampere hour", "ampere hours"),
    "kcal": ("kilocalorie", "kilocalories"),
    "cal": ("calorie", "calories"),
    "Hz": _same("hertz"),
    "kHz": _same("kilohertz"),
    "MHz": _same("megahertz"),
    "GHz": _same("gigahertz"),
    "THz": _same("terahertz"),
    "lx": _same("lux"),
    "lm": ("lumen", "lumens"),
    "dB": ("decibel", "decibels"),
    "ppm": _same("parts per million"),
    "ppb": _same("parts per billion"),
    "bar": ("bar", "bars"),
    "mbar": ("millibar", "millibars"),
    "atm": ("atmosphere", "atmospheres"),
    "psi": _same("P S I"),
    "mmHg": _same("millimeters of mercury"),
    "ha": ("hectare", "hectares"),
    "t": ("ton", "tons"),
    "h": ("hour", "hours"),
    "hr": ("hour", "hours"),
    "hrs": ("hour", "hours"),
    "min": ("minute", "minutes"),
    "mins": ("minute", "minutes"),
    "sec": ("second", "seconds"),
    "secs": ("second", "seconds"),
    "yr": ("year", "years"),
    "yrs": ("year", "years"),
    "wk": ("week", "weeks"),
    "wks": ("week", "weeks"),
    "ft": ("foot", "feet"),
    "yd": ("yard", "yards"),
    "yds": ("yard", "yards"),
    "mi": ("mile", "miles"),
    "lb": ("pound", "pounds"),
    "lbs": ("pound", "pounds"),
    "oz": ("ounce", "ounces"),
    "gal": ("gallon", "gallons"),
    "qt": ("quart", "quarts"),
    "tsp": ("teaspoon", "teaspoons"),
    "tbsp": ("tablespoon", "tablespoons"),
    "mph": ("mile per hour", "miles per hour"),
    "kmh": ("kilometer per hour", "kilometers per hour"),
    "kph": ("kilometer per hour", "kilometers per hour"),
    "mpg": ("mile per gallon", "miles per gallon"),
    "rpm": _same("R P M"),
    "bpm": ("beat per minute", "beats per minute"),
    "fps": ("frame per second", "frames per second"),
    "dpi": _same("D P I"),
    "px": ("pixel", "pixels"),
    "MP": ("megapixel", "megapixels"),
    "hp": _same("horsepower"),
    "kn": ("knot", "knots"),
    "K": ("kelvin", "kelvins"),
    "\u00b0C": _same_degrees("Celsius"),
    "\u00b0F": _same_degrees("Fahrenheit"),
    "\u00b0 C": _same_degrees("Celsius"),
    "\u00b0 F": _same_degrees("Fahrenheit"),
    **{f"\u00b0{gap}{letter}": _same_degrees(name) for gap in ("", " ") for letter, name in _COMPASS.items()},
    "\u00b0K": ("kelvin", "kelvins"),
    "\u00b0": ("degree", "degrees"),
    "deg": ("degree", "degrees"),
    "degC": _same_degrees("Celsius"),
    "degF": _same_degrees("Fahrenheit"),
    "F": _same_degrees("Fahrenheit"),
    "%": _same("percent"),
    "\u2030": _same("per mille"),
}
_ATTACHED_ONLY = {"C": _same_degrees("Celsius"), "s": UNITS["s"]}
"""Symbols that are words or names behind a space: grade 5 C."""
_SPACED_ONLY = frozenset(["K", "m", "t", "MP"])
"""Symbols that mean thousand, million and the like next to the digits; metres and tons have a space."""

_PLAIN = "|".join(sorted(map(re.escape, UNITS.keys() - _SPACED_ONLY), key=len, reverse=True))
SYMBOLS = "|".join(sorted(map(re.escape, UNITS), key=len, reverse=True))
"""Alternatives of a regular expression."""
_END = r"(?![\w\u00b2\u00b3'^]|-\w)"
_POWER = r"(?:[\u00b2\u00b3]|\^?[23](?![\w.,]))"
_SQUARES = "(?:[kcmn]?m|ft|mi|yd|in|\u03bcm)"
_PER = r"(?:[ms](?:[\u00b2\u00b3]|\^[23])|[a-zA-Z\u03bc]{1,4}|100 ?(?:g|ml|km))"
_PER_NAMES = {
    "m\u00b2": "square meter", "m\u00b3": "cubic meter", "h": "hour", "hr": "hour", "s\u00b2": "second squared",
    "s": "second",
    "d": "day", "day": "day", "yr": "year", "a": "year", "min": "minute", "week": "week", "year": "year", "mo": "month",
    "hour": "hour", "sec": "second", "inch": "inch", "in": "inch",
}  # fmt: skip
_UNIT = (
    rf"(?P<unit>(?<=\d)(?:{_PLAIN}|C|s|in)|(?<=\d) (?:{SYMBOLS})|\s?(?:sq|cu)\.? ?(?:ft|in|mi|yd|m|cm|km))"
    rf"(?:\s?/\s?(?P<per>{_PER}))?{_END}"
)
_AREA = rf"\s?(?P<unit>{_SQUARES})(?P<power>{_POWER})(?:\s?/\s?(?P<per>s|h|min))?(?!\w)"
_MORE_UNITS = {"in": ("inch", "inches"), **_ATTACHED_ONLY}


def name_of(unit: str, *, singular: bool) -> str:
    """The name of a unit by its symbol."""
    prefix = ""
    for short, word in (("sq", "square "), ("cu", "cubic ")):
        if unit.startswith(short) and unit not in UNITS:
            prefix, unit = word, unit[2:].lstrip(". ")
    names = UNITS.get(unit) or _MORE_UNITS[unit]
    return prefix + names[0 if singular else 1]


def _per(unit: str | None) -> str | None:
    """The words for what stands behind the stroke of a rate; None if it is no unit."""
    if not unit:
        return ""
    if unit.startswith("100"):
        return f" per hundred {name_of(unit[3:].strip(), singular=False)}"
    name = _PER_NAMES.get(unit.replace("^2", "\u00b2").replace("^3", "\u00b3")) or (
        UNITS[unit][0] if unit in UNITS else None
    )
    return name and f" per {name}"


def _quantity(match: re.Match[str]) -> str | None:
    per = _per(match["per"])
    if per is None:
        return None
    written, unit = match["number"], match["unit"].strip()
    first = ""
    if match["first"]:
        own = match["first_unit"]
        own_name = f" {name_of(own, singular=is_one(match['first']))}" if own and own != unit else ""
        first = f"{number(match['first'])}{own_name} to "
    second = sign_words(match["second_sign"]) if match["first"] else ""
    name = name_of(unit, singular=is_one(written) and not first)
    return f"{sign_words(match['sign'])}{first}{second}{number(written)} {name}{per}"


def _area(match: re.Match[str]) -> str | None:
    per = _per(match["per"])
    if per is None:
        return None
    kind = "square" if match["power"].strip("^") in ("2", "\u00b2") else "cubic"
    first = f"{number(match['first'])} to " if match["first"] else ""
    name = name_of(match["unit"], singular=is_one(match["number"]))
    return f"{sign_words(match['sign'])}{first}{number(match['number'])} {kind} {name}{per}"


def _duration(match: re.Match[str]) -> str:
    said = []
    for name, written in (("day", match["d"]), ("hour", match["h"]), ("minute", match["m"]), ("second", match["s"])):
        if written:
            said.append(f"{number(written)} {name if is_one(written) else name + 's'}")
    return " ".join(said)


def _feet(match: re.Match[str]) -> str:
    return f"{number(match[1])} foot {number(match[2])}"


_VALUE = (
    rf"{BOUNDARY}(?P<sign>{SIGN})(?:(?P<first>{NUMBER})\s?(?P<first_unit>{SYMBOLS})?\s?(?:[-\u2013]|to\b)\s?"
    rf"(?P<second_sign>-?))?(?P<number>{NUMBER})"
)
_WHOLE = r"([0-9]{1,4})"

RULES = (
    rule(
        r"(?<=(?: two|four|five|nine|many) )([0-9])s\b",
        lambda match: f"{cardinal(int(match[1]))}{'es' if match[1] == '6' else 's'}",
        at=At.numbers,
    ),
    rule(
        r"(?<![\w.])(?:(?P<d>[0-9]{1,4}) ?d(?:ays?)?[, ] ?)?(?P<h>[0-9]{1,4}) ?(?:h|hrs?) ?(?P<m>[0-9]{1,4}) ?"
        r"(?:m|mins?)\b(?: ?(?P<s>[0-9]{1,4}) ?(?:s|secs?)\b)?",
        _duration,
        at=At.numbers,
    ),
    rule(
        r"(?<![\w.])(?P<d>)(?P<h>)(?P<m>[0-9]{1,4}) ?(?:m|mins?) ?(?P<s>[0-9]{1,4}) ?(?:s|secs?)\b",
        _duration,
        at=At.numbers,
    ),
    rule(rf"(?<![\w.]){_WHOLE}' ?([0-9]{{1,2}})(?:\"|'')", _feet, needs="'", at=At.numbers),
    rule(
        rf"(?<![\w.]){_WHOLE} ?(?:ft|feet|foot)\.? ?([0-9]{{1,2}}) ?in(?:ch(?:es)?)?\b",
        lambda match: f"{number(match[1])} feet {number(match[2])} inches",
        at=At.numbers,
    ),
    rule(
        rf"(?<![\w.]){_WHOLE}' ?[x\u00d7] ?{_WHOLE}'",
        lambda match: f"{number(match[1])} feet by {number(match[2])} feet",
        needs="'",
        at=At.numbers,
    ),
    rule(rf"(?<![\w.]){_WHOLE}'([0-9]{{1,2}})(?!\w)", _feet, needs="'", at=At.numbers),
    rule(
        rf"{BOUNDARY}({NUMBER})(?:\"|-inch\b)(?=[ ,.;:)?!]|$)",
        lambda match: f"{number(match[1])} inch",
        needs='"-',
        at=At.numbers,
    ),
    rule(rf"{_VALUE}{_AREA}", _area, at=At.numbers),
    rule(rf"{_VALUE}{_UNIT}", _quantity, at=At.numbers),
)
