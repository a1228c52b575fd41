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
    *numbers.COMPARISONS,
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


MAX_ROUNDS = 4


def spell_out(text: str) -> str:
    """`text` in words, with the punctuation that the engines know. Its paragraphs stay apart.

    What has been said once stays as it is: the rules are applied until nothing changes, mostly once.
    """
    for _ in range(MAX_ROUNDS):
        said = _spell_out(text)
        if said == text:
            break
        text = said
    return text


def _spell_out(text: str) -> str:
    return symbols.punctuate(apply(_RULES, text))
