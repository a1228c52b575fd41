"""Signs before numbers."""

from __future__ import annotations

SIGN = r"(?:(?<![\w.)\]%\u00b0])[-+\u00b1])?"
"""An optional sign: a hyphen behind a word or number is none."""
BOUNDARY = r"(?<![\w.,])"
"""Stands before a number without a sign: not within a word, a number or an address."""

_WORDS = {"": "", "-": "minus ", "+": "plus ", "\u00b1": "plus or minus "}


def sign_words(sign: str | None) -> str:
    """The words for a sign, with the space behind them."""
    return _WORDS[sign or ""]
