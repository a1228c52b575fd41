"""Amounts of money: symbols before and behind, codes, cents, and words for large amounts."""

from __future__ import annotations

import re

from balancer.text.english.cardinals import NUMBER, cardinal, is_one, number, parts
from balancer.text.english.rules import At, rule
from balancer.text.english.signs import BOUNDARY, SIGN, sign_words

_Names = tuple[str, str, str, str]
"""Singular and plural of a currency, and of its hundredth part."""

_DOLLAR: _Names = ("dollar", "dollars", "cent", "cents")
_EURO: _Names = ("euro", "euros", "cent", "cents")
_POUND: _Names = ("pound", "pounds", "penny", "pence")
_RUPEE: _Names = ("rupee", "rupees", "paisa", "paise")
_FRANC: _Names = ("franc", "francs", "centime", "centimes")


def _whole(singular: str, plural: str = "") -> _Names:
    """A currency whose hundredth part has no name in English."""
    return (singular, plural or singular, "", "")


SYMBOLS: dict[str, _Names] = {
    "$": _DOLLAR,
    "\u20ac": _EURO,
    "\u00a3": _POUND,
    "\u00a5": _whole("yen"),
    "\u20b9": _RUPEE,
    "\u20a8": _RUPEE,
    "\u20bf": _whole("bitcoin"),
    "\u20a9": _whole("won"),
    "\u20bd": ("ruble", "rubles", "kopeck", "kopecks"),
    "\u20ba": _whole("lira"),
    "\u20b4": _whole("hryvnia"),
    "\u20ab": _whole("dong"),
    "\u20b1": _whole("peso", "pesos"),
    "\u20aa": _whole("shekel", "shekels"),
    "\u0e3f": _whole("baht"),
    "\u20a6": _whole("naira"),
    "\u20a1": _whole("colon", "colones"),
    "\u20be": _whole("lari"),
    "\u20bc": _whole("manat"),
    "\u20b8": _whole("tenge"),
    "\u20b5": _whole("cedi", "cedis"),
    "\u20b2": _whole("guarani"),
    "\u00a4": _whole("currency units"),
    "\u00a2": ("cent", "cents", "", ""),
}
_PREFIXED = {
    "US$": "", "A$": "Australian", "AU$": "Australian", "C$": "Canadian", "CA$": "Canadian", "NZ$": "New Zealand",
    "HK$": "Hong Kong", "S$": "Singapore", "NT$": "Taiwan", "MX$": "Mexican", "$US": "",
}  # fmt: skip
CODES: dict[str, _Names] = {
    "USD": _DOLLAR,
    "EUR": _EURO,
    "GBP": _POUND,
    "JPY": _whole("yen"),
    "CNY": _whole("yuan"),
    "RMB": _whole("yuan"),
    "CHF": ("Swiss franc", "Swiss francs", "centime", "centimes"),
    "CAD": ("Canadian dollar", "Canadian dollars", "cent", "cents"),
    "AUD": ("Australian dollar", "Australian dollars", "cent", "cents"),
    "NZD": ("New Zealand dollar", "New Zealand dollars", "cent", "cents"),
    "HKD": ("Hong Kong dollar", "Hong Kong dollars", "cent", "cents"),
    "SGD": ("Singapore dollar", "Singapore dollars", "cent", "cents"),
    "INR": _RUPEE,
    "KRW": _whole("won"),
    "RUB": ("ruble", "rubles", "kopeck", "kopecks"),
    "SEK": _whole("Swedish krona", "Swedish kronor"),
    "NOK": _whole("Norwegian krone", "Norwegian kroner"),
    "DKK": _whole("Danish krone", "Danish kroner"),
    "PLN": _whole("zloty"),
    "CZK": _whole("Czech koruna"),
    "TRY": _whole("Turkish lira"),
    "MXN": _whole("Mexican peso", "Mexican pesos"),
    "BRL": _whole("Brazilian real", "Brazilian reais"),
    "ZAR": _whole("rand"),
    "BTC": _whole("bitcoin"),
    "Rs": _RUPEE,
    "Fr": _FRANC,
}
_SCALES = {
    "k": "thousand", "thousand": "thousand", "m": "million", "mn": "million", "mio": "million", "mm": "million",
    "million": "million", "b": "billion", "bn": "billion", "billion": "billion", "t": "trillion", "tn": "trillion",
    "trillion": "trillion", "hundred": "hundred", "cr": "crore", "crore": "crore", "lakh": "lakh",
}  # fmt: skip

_SYMBOL = f"[{re.escape(''.join(SYMBOLS))}]"
_BEFORE = rf"(?:(?:{'|'.join(sorted(map(re.escape, _PREFIXED), key=len, reverse=True))})|(?:R\$)|{_SYMBOL})"
_SCALE = r"(?:[ -]?(?:thousand|million|billion|trillion|hundred|crore|lakh)\b|(?:k|K|mn|mio|mm|bn|tn|[MBTmb])(?![\w]))?"
_CODE = rf"(?:{'|'.join(CODES)})"
_LONG_CODE = rf"(?:{'|'.join(code for code in CODES if len(code) > 2)})"
_PER = (
    r"(?P<per>\s?/\s?(?:year|yr|month|mo|week|wk|day|hour|hr|h|night|person|unit|item|user|seat|kg|lb|m\u00b2|m\u00b3|mile"
    r"|km|GB|kWh|minute|min|share|barrel)(?!\w))?"
)
_PERIODS = {
    "yr": "year",
    "mo": "month",
    "wk": "week",
    "hr": "hour",
    "h": "hour",
    "kg": "kilogram",
    "lb": "pound",
    "km": "kilometer",
    "m\u00b2": "square meter",
    "m\u00b3": "cubic meter",
    "GB": "gigabyte",
    "kWh": "kilowatt hour",
    "min": "minute",
}


def _names(currency: str) -> _Names:
    if currency in CODES:
        return CODES[currency]
    if currency in _PREFIXED:
        nation = _PREFIXED[currency]
        return (f"{nation} dollar".strip(), f"{nation} dollars".strip(), "cent", "cents")
    return _whole("real", "reais") if currency == "R$" else SYMBOLS[currency]


def amount(sign: str | None, written: str, scale: str | None, currency: str) -> str:
    """The words of an amount, such as fifty dollars and thirty cents."""
    singular, plural, hundredth, hundredths = _names(currency)
    signed = sign_words(sign)
    if scale:
        return f"{signed}{number(written)} {_SCALES[scale.strip(' -').lower()]} {plural}"
    whole, fraction = parts(written)
    if len(fraction) != 2 or not hundredth:
        return f"{signed}{number(written)} {singular if is_one(written) else plural}"
    cents = int(fraction)
    minor = f"{cardinal(cents)} {hundredth if cents == 1 else hundredths}"
    if cents and not whole.strip("0"):
        return signed + minor
    major = f"{number(whole or '0')} {singular if whole == '1' else plural}"
    return f"{signed}{major} and {minor}" if cents else signed + major


def _amount(match: re.Match[str]) -> str:
    said = amount(match["sign"], match["number"], match["scale"], match["currency"].rstrip(". "))
    return said + _per(match)


def _per(match: re.Match[str]) -> str:
    if not match["per"]:
        return ""
    unit = match["per"].strip(" /")
    return f" per {_PERIODS.get(unit, unit)}"


def _range(match: re.Match[str]) -> str:
    currency = match["currency"]
    scale, first_scale = match["scale"], match["first_scale"]
    second = amount(None, match["number"], scale, match["second_currency"] or currency)
    if match["second_currency"] or first_scale:
        first = amount(match["sign"], match["first"], first_scale, currency)
    else:
        first = number(match["first"])
    return f"{first} to {second}{_per(match)}"


def _range_behind(match: re.Match[str]) -> str:
    second = amount(None, match["number"], match["scale"], match["currency"])
    return f"{number(match['first'])} to {second}"


_ALL = "".join(SYMBOLS)

RULES = (
    rule(
        rf"{BOUNDARY}(?P<sign>{SIGN})(?P<currency>{_BEFORE})(?P<first>{NUMBER})(?P<first_scale>{_SCALE})\s?(?:[-\u2013]|to)\s?"
        rf"(?P<second_currency>{_BEFORE})?(?P<number>{NUMBER})(?P<scale>{_SCALE}){_PER}",
        _range,
        needs=_ALL,
    ),
    rule(
        rf"(?P<sign>{SIGN})(?<![\w.])(?P<currency>{_BEFORE})\s?(?P<minus>-?)(?P<number>{NUMBER})(?P<scale>{_SCALE}){_PER}",
        lambda match: (
            amount(match["sign"] or match["minus"], match["number"], match["scale"], match["currency"]) + _per(match)
        ),
        needs=_ALL,
    ),
    rule(
        rf"{BOUNDARY}(?P<first>{NUMBER})\s?[-\u2013]\s?(?P<number>{NUMBER})(?P<scale>{_SCALE})\s?(?P<currency>{_SYMBOL})(?!\w)",
        _range_behind,
        needs=_ALL,
        at=At.numbers,
    ),
    rule(
        rf"{BOUNDARY}(?P<sign>{SIGN})(?P<number>{NUMBER})(?P<scale>{_SCALE})\s?(?P<currency>{_SYMBOL})(?![\w]){_PER}",
        _amount,
        needs=_ALL,
        at=At.numbers,
    ),
    rule(
        rf"{BOUNDARY}(?P<sign>{SIGN})(?P<number>{NUMBER})(?P<scale>{_SCALE})\s?(?P<currency>{_LONG_CODE})\b{_PER}",
        _amount,
        needs=tuple(CODES),
        at=At.numbers,
    ),
    rule(
        rf"\b(?P<currency>{_CODE}\b\.?)\s?(?P<sign>-?)(?P<number>{NUMBER})(?P<scale>{_SCALE}){_PER}",
        _amount,
        needs=tuple(CODES),
        at=At.capitals,
    ),
)
