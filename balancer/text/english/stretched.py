"""Stretched words and laughter: `Nooooo`, `Hahaha`."""

from __future__ import annotations

import re

from balancer.text.english.rules import rule

_DOUBLED = frozenset(
    """
    agree all allow ball beef been bee bell boo book boom boss call cheer cheers coffee cool deep doom eel feel fell
    feet fool food foot free freedom
    full geese goodness good goodbye goose green hall hee hell hello hill hoo hoop hoot hurry i'll ill indeed keep
    kill kiss kneel knee look loop
    loose mall mass meet mess miss mood moon moo need noon off oops pass pee peep pool poor puff queen roof room root
    sheep school see seem seen sell
    shoot sleep small smell smooth soon speed spell spoon steel still sunny funny happy yummy pretty better little
    matter letter dinner summer silly
    sorry street sweet tall teeth tell three till too took tooth tree wall weed week weep well wheel whee will woo
    wood wool yahoo yell yee zoo aww
    eww hmm mm mmm brr grr shh zz bzz pff yippee amazing-grace freeze breeze cheese screen between
    """.split()
)
"""Words whose double letter stays when a stretched one is cut."""
_SOUNDS = {"shh": "shush", "mmm": "mm", "ahh": "ah", "ohh": "oh"}
_RUN = re.compile(r"([^\W\d_])\1{2,}", re.IGNORECASE)
_SUFFIX = re.compile(r"(?:ed|er|est|ing|s|y|ly)$")
MAX_LAUGHS = 6
"""Syllables of laughter that are said."""


def _shortened(match: re.Match[str]) -> str | None:
    word = match[0]
    if (
        word.lower().startswith("www")
        or (word.isupper() and len(word) < 4)
        or re.fullmatch(r"[IVXLCDM]+|[xX]{2,3}", word)
    ):
        return None
    doubled = _RUN.sub(lambda run: run[1] + run[1].lower(), word)
    single = _RUN.sub(r"\1", word)
    said = doubled if _is_doubled(doubled.lower()) else single
    said = _SOUNDS.get(said.lower(), said)
    if word.isupper():
        return said.capitalize()
    return said[0].upper() + said[1:] if word[0].isupper() else said


def _is_doubled(word: str) -> bool:
    return word in _DOUBLED or _SUFFIX.sub("", word) in _DOUBLED


def _laughter(match: re.Match[str]) -> str:
    syllable = match[1]
    count = min(MAX_LAUGHS, len(match[0]) // 2)
    words = [syllable.lower()] * count
    words[0] = syllable.capitalize() if syllable[0].isupper() else syllable
    return " ".join(words)


RULES = (
    rule(
        r"\b(ha|he|ho|hi)\1{1,200}h?\b(?<!hehe-)",
        _laughter,
        flags=re.IGNORECASE,
        needs=re.compile(r"(?:ha|he|ho|hi){2}", re.IGNORECASE),
    ),
    rule(r"\b(?=[^\W\d_]*([^\W\d_])\1\1)[^\W\d_]{3,2000}\b", _shortened, flags=re.IGNORECASE, needs=_RUN),
)
