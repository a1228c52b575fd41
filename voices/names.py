"""Names of voices: any printable line, compared without regard to case and blanks; and the names of their folders.

A folder has a safe name that follows from the voice's, so that no name reaches the file system as it is, and two voices
whose names are equal cannot both be there.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Container

MAX_NAME_CHARACTERS = 100

EXAMPLE = "narrator"

SAFE = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
"""Names that are their own folders' names."""

_SLUG_CHARACTERS = 40
_DIGEST_DIGITS = 10

_JOINERS = "\u200c\u200d"
"""Invisible characters that Persian and Indic words and emoji are written with."""

_UNPRINTABLE_CATEGORIES = {
    "Cc": "a control character",
    "Zl": "a line break",
    "Zp": "a line break",
    "Cf": "an invisible character",
    "Cs": "a byte that is not UTF-8",
    "Co": "a character of private use",
    "Cn": "a character that Unicode does not have",
}

_IGNORED = re.compile("[\u034f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
"""Characters that change nothing or only the look of the one before, beside those of the category Cf."""


def voice_name(text: str) -> str:
    """The name as it is stored: composed (NFC), without outer blanks, and with one space for each run of inner ones.

    Raises ValueError, which says why `text` cannot be a name and offers one that can.
    """
    line = text.strip()
    for character in line:
        category = unicodedata.category(character)
        if category in _UNPRINTABLE_CATEGORIES and character not in _JOINERS:
            found = f"{_UNPRINTABLE_CATEGORIES[category]} (U+{ord(character):04X})"
            raise ValueError(f"has {found}, and must be one printable line; {_printable(line)!r} would do")
    name = _one_spaced(unicodedata.normalize("NFC", line))
    if not name_key(name):
        raise ValueError(f"is empty; {EXAMPLE!r} would do")
    if len(name) > MAX_NAME_CHARACTERS:
        raise ValueError(
            f"has {len(name)} characters, and may have {MAX_NAME_CHARACTERS}; {_printable(name)!r} would do"
        )
    return name


def name_key(name: str) -> str:
    """The form in which names are compared: two names are equal if their keys are.

    Compatible characters (NFKC) are equal, and so are capitals and small letters, runs of blanks, and names with and
    without outer blanks. Invisible characters do not count.
    """
    if name.isascii():
        return _one_spaced(name.lower())
    folded = unicodedata.normalize("NFD", name)
    for _ in range(2):
        folded = unicodedata.normalize("NFKC", folded.casefold())
    return _one_spaced("".join(c for c in folded if unicodedata.category(c) != "Cf" and not _IGNORED.match(c)))


def folder_name(name: str) -> str:
    """Name of the folder of a voice: equal for equal names only, of the characters a-z, 0-9, `_` and `-`.

    A name that has these only is its folder's name; any other is made readable, and told apart by digits.
    """
    key = name_key(name)
    if SAFE.fullmatch(key):
        return key
    letters = unicodedata.normalize("NFKD", key).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", letters)[:_SLUG_CHARACTERS].strip("-") or "voice"
    return f"{slug}-{hashlib.sha256(key.encode(errors='surrogatepass')).hexdigest()[:_DIGEST_DIGITS]}"


def free_name(name: str, taken: Container[str]) -> str:
    """A name much like this one that no other voice has. `taken` has the folders' names of those that are."""
    separator = "-" if SAFE.fullmatch(name) else " "
    number = 2
    while folder_name(candidate := f"{name[: MAX_NAME_CHARACTERS - 10]}{separator}{number}") in taken:
        number += 1
    return candidate


def _printable(text: str) -> str:
    """A name that is made of the printable characters of a text."""
    kept = (c if unicodedata.category(c) not in _UNPRINTABLE_CATEGORIES or c in _JOINERS else "" for c in _spaced(text))
    return _one_spaced("".join(kept))[:MAX_NAME_CHARACTERS].strip() or EXAMPLE


def _spaced(text: str) -> str:
    return "".join(" " if character.isspace() else character for character in text)


def _one_spaced(text: str) -> str:
    return " ".join(text.split())
