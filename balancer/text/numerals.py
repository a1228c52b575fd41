"""Plain numbers in languages other than English, by num2words; everything else stays as it is written."""

from __future__ import annotations

import re
from functools import lru_cache

from num2words import CONVERTER_CLASSES, num2words

_DANISH = "da" if "da" in CONVERTER_CLASSES else "dk"
"""Versions of the library differ in this name."""

LANGUAGES = {
    "ar": "ar", "da": _DANISH, "de": "de", "es": "es", "fi": "fi", "fr": "fr", "he": "he", "it": "it", "ko": "ko",
    "nl": "nl", "no": "no",
    "pl": "pl", "pt": "pt", "ru": "ru", "sv": "sv", "tr": "tr",
}  # fmt: skip
"""Languages of the engines that num2words knows, as it calls them."""

_NUMBER = re.compile(
    r"(?<![\w.,:/-])(-?)([0-9]{1,3}(?:[.\u0020'][0-9]{3}){1,3}|[0-9]{1,12})(?:,([0-9]{1,6}))?(?![\w:/]|[.,-][0-9])"
)
_GERMAN_YEAR = re.compile(r"1[1-9][0-9]{2}")


def spell_out(text: str, language: str) -> str:
    """`text` with its plain numbers in words of the language, where num2words has it."""
    name = LANGUAGES.get(language)
    return text if name is None else _NUMBER.sub(lambda match: _words(match, name) or match[0], text)


def _words(match: re.Match[str], language: str) -> str | None:
    digits, fraction = re.sub(r"[. ']", "", match[2]), match[3] or ""
    if len(digits) > 1 and digits.startswith("0"):
        return None
    return _spoken(f"{match[1]}{digits}{'.' + fraction if fraction else ''}", language)


@lru_cache(maxsize=4096)
def _spoken(number: str, language: str) -> str | None:
    try:
        if language == "de" and _GERMAN_YEAR.fullmatch(number):
            return str(num2words(int(number), lang=language, to="year"))
        return str(num2words(float(number) if "." in number else int(number), lang=language)).strip()
    except (NotImplementedError, OverflowError, IndexError, KeyError, ValueError):
        return None  # the number is beyond what the library has words for
