"""Numbers as words: cardinals, ordinals, years, decimals and single digits, by num2words."""

from __future__ import annotations

import re
from functools import lru_cache

from num2words import num2words

MAX_CARDINAL_DIGITS = 15
"""Numbers with more digits are said digit by digit."""

DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

GROUPED = (
    r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,6}(?![0-9])|[0-9]{1,3}(?:[ '][0-9]{3}){1,6}(?![0-9])|[0-9]{1,3}"
    r"(?:\.[0-9]{3}){2,6}(?![0-9])|[0-9]{1,2}(?:,[0-9]{2}){1,5},[0-9]{3}(?![0-9]))"
)
NUMBER = (
    rf"(?:{GROUPED}(?:\.[0-9]{{1,20}}(?![0-9])|,[0-9]{{1,2}}(?![0-9,]))?"
    r"|[0-9]{1,3}(?:\.[0-9]{3}){1,6},[0-9]{1,2}(?![0-9,])"
    r"|[0-9]{1,40}\.[0-9]{1,20}(?![0-9])|[0-9]{1,40},[0-9]{1,2}(?![0-9,])|[0-9]{1,40}|\.[0-9]{1,20}(?![0-9]))"
)
"""A number without its sign: `1,234.5`, `10 000`, `10'000`, `1.234,50`, `27,50`, `.5`."""


@lru_cache(maxsize=1000)
def _below_thousand(number: int) -> str:
    return str(num2words(number)).replace(" and ", " ")


def cardinal(number: int) -> str:
    """`1035`: one thousand thirty-five. `number` has at most MAX_CARDINAL_DIGITS digits.

    num2words takes up to 0.1 ms for a number: it is asked for the groups of three digits, which repeat.
    """
    if number < 1000:
        return _below_thousand(number)
    words: list[str] = []
    for scale in ("", " thousand", " million", " billion", " trillion"):
        number, group = divmod(number, 1000)
        if group:
            words.insert(0, _below_thousand(group) + scale)
    return " ".join(words)


@lru_cache(maxsize=1024)
def ordinal(number: int) -> str:
    """`21`: twenty-first."""
    return str(num2words(number, to="ordinal")).replace(",", "").replace(" and ", " ")


def digit_by_digit(digits: str) -> str:
    """`007`: zero zero seven."""
    return " ".join(DIGIT_NAMES[int(digit)] for digit in digits)


@lru_cache(maxsize=1024)
def year(number: int) -> str:
    """`1908`: nineteen oh eight; `2005`: two thousand five."""
    century, rest = divmod(number, 100)
    if not 1000 <= number <= 9999 or (century % 10 == 0 and rest < 10):
        return cardinal(number)
    if rest == 0:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {'oh ' if rest < 10 else ''}{cardinal(rest)}"


def pair(number: int) -> str:
    """A number of two digits behind another: `3` is oh three."""
    return f"oh {cardinal(number)}" if number < 10 else cardinal(number)


def integer(digits: str) -> str:
    """An integer in digits: those with leading zeros, and very long ones, digit by digit."""
    plain = digits.lstrip("0")
    if len(digits) > MAX_CARDINAL_DIGITS or (len(digits) > 1 and len(plain) < len(digits)):
        return digit_by_digit(digits)
    return cardinal(int(digits))


@lru_cache(maxsize=4096)
def parts(written: str) -> tuple[str, str]:
    """The digits of a NUMBER before and behind its decimal mark."""
    plain = re.sub(r"[ ']", "", written)
    commas, points = plain.count(","), plain.count(".")
    if commas and points:
        decimal = max(plain.rfind(","), plain.rfind("."))
    elif commas == 1:
        decimal = -1 if re.search(r",\d{3}$", plain) else plain.find(",")
    elif points == 1:
        decimal = plain.find(".")
    else:
        decimal = -1
    whole, fraction = (plain, "") if decimal < 0 else (plain[:decimal], plain[decimal + 1 :])
    return re.sub(r"[.,]", "", whole), fraction


def number(written: str) -> str:
    """A NUMBER in words: `1,234.50` is one thousand two hundred thirty-four point five zero."""
    whole, fraction = parts(written)
    words = integer(whole or "0")
    return f"{words} point {digit_by_digit(fraction)}" if fraction else words


def is_one(written: str) -> bool:
    """Whether a noun behind the NUMBER is singular."""
    return parts(written) == ("1", "")
