"""The English stages in their order."""

from __future__ import annotations

from balancer.text.english import (
    abbreviations,
    addresses,
    capitals,
    dates,
    fractions,
    money,
    numbers,
    phones,
    roman,
    stretched,
    symbols,
    times,
    units,
)
from balancer.text.english.rules import apply

_RULES = (
    *stretched.RULES,
    *symbols.BEFORE_NUMBERS,
    *addresses.RULES,
    *dates.RULES,
    *times.RULES,
    *abbreviations.BEFORE_NUMBERS,
    *phones.RULES,
    *money.RULES,
    *fractions.RULES,
    *units.RULES,
    *roman.RULES,
    *abbreviations.RULES,
    *numbers.RULES,
    *symbols.RULES,
    *capitals.RULES,
)


def spell_out(text: str) -> str:
    """`text` in words, with the punctuation that the engines know. Its paragraphs stay apart."""
    paragraphs = map(symbols.punctuate, apply(_RULES, text).split("\n\n"))
    return "\n\n".join(filter(None, paragraphs))
