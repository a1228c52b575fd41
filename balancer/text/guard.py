"""The rule that holds for every replacement: each digit, sign and currency of it has a word in its place."""

from __future__ import annotations

import re

_SMALL = (
    "zero oh one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion trillion "
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth thirtieth fortieth fiftieth sixtieth seventieth eightieth "
    "ninetieth hundredth thousandth millionth half quarter twenties thirties forties fifties sixties seventies "
    "eighties "
    "nineties hundreds thousands midnight squared cubed square cubic"
)
_MONTHS = "january february march april may june july august september october november december"
NUMBER_WORDS = frozenset(f"{_SMALL} {_MONTHS} {' '.join(f'{word}s' for word in _SMALL.split())}".split())
"""Words that a digit may have become."""
CURRENCY_WORDS = frozenset(
    "dollar dollars cent cents euro euros pound pounds penny pence yen yuan rupee rupees paise bitcoin won "
    "ruble rubles lira "
    "hryvnia dong peso pesos shekel shekels baht naira franc francs krona kronor krone kroner zloty forint "
    "koruna real reais "
    "rand ringgit rupiah dirham dirhams riyal riyals cedi tugrik kip tenge colon lari manat guarani currency".split()
)

_DIGITS = re.compile(r"\d+")
_WORDS = re.compile(r"[a-z]+")
_SIGN = re.compile(
    r"""(?<![\w.)\]%\u00b0$\u20ac\u00a3\u00a5"'])[-+\u2212\u00b1](?=[.$\u20ac\u00a3\u00a5\u20a0-\u20cf]?\d)"""
)
_SIGN_WORDS = frozenset(["minus", "plus", "negative"])
_CURRENCY = re.compile("[$\u00a2-\u00a5\u0e3f\u20a0-\u20cf]")


def is_complete(source: str, said: str) -> bool:
    """Whether `said` has a word for every number but 0, sign, currency and per cent sign of `source`."""
    words = _WORDS.findall(said.lower())
    numbers = [digits for digits in _DIGITS.findall(source) if digits.strip("0")]
    if _DIGITS.search(said) or sum(word in NUMBER_WORDS for word in words) < len(numbers):
        return False
    if _SIGN.search(source) and _SIGN_WORDS.isdisjoint(words):
        return False
    if _CURRENCY.search(source) and CURRENCY_WORDS.isdisjoint(words):
        return False
    return "%" not in source or "percent" in words
