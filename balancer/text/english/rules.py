"""Rules: a pattern and what is said in its place, applied under the guard's rule.

A rule searches only where it can match: in texts that have what it needs, and from the places where it begins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from balancer.text.guard import is_complete
from balancer.text.marks import PAUSE_MARKS

GAP = rf"[\s{PAUSE_MARKS}]+"
"""A gap between two words, for a look ahead: white space, a pause that the text asks for, or both."""

_DIGIT = re.compile(r"\d")
_NUMERIC = re.compile("[\\d$\u00a2-\u00a5\u20a0-\u20cf]")
_NUMBER_START = re.compile("[-+\u00b1.'(]{0,3}[0-9]+")
_CAPITAL = re.compile("[A-Z\u00c0-\u00de]+")

Needs = str | tuple[str, ...] | re.Pattern[str]


class At:
    """Candidate positions of a rule's matches: functions from a text to the places in it."""

    @staticmethod
    def numbers(text: str) -> list[int]:
        """At a number, or at a sign, point, apostrophe or bracket before it."""
        return list(_number_starts(text)) if _DIGIT.search(text) is not None else []

    @staticmethod
    def capitals(text: str) -> list[int]:
        """At the first capital of a word."""
        return [match.start() for match in _CAPITAL.finditer(text)]


@dataclass(frozen=True)
class Rule:
    """A pattern and the words for a match; None leaves the match as it stands."""

    pattern: re.Pattern[str]
    words: Callable[[re.Match[str]], str | None]
    characters: frozenset[str] | None = None
    """Characters of which the text must have one; None: it needs none."""
    holds: Callable[[str], bool] | None = None
    """A quick look whether the text may have a match; None: it may."""
    at: Callable[[str], list[int]] | None = None
    """The places at which a match may begin; None: anywhere."""
    abridges: bool = False
    """Whether the words may leave out numbers, such as those of a long address: the guard is not asked then."""


def rule(
    pattern: str,
    words: Callable[[re.Match[str]], str | None] | str,
    *,
    needs: Needs = "",
    at: Callable[[str], list[int]] | None = None,
    flags: int = 0,
    abridges: bool = False,
) -> Rule:
    """A rule.

    `words` may be a template for `re.Match.expand`. `needs` spares the search: characters or strings of which the text
    must have one, or a pattern that it must match.
    """
    if isinstance(words, str):
        template = words
        return rule(pattern, lambda match: match.expand(template), needs=needs, at=at, flags=flags, abridges=abridges)
    characters = frozenset(needs) if isinstance(needs, str) and needs else None
    return Rule(re.compile(pattern, flags), words, characters, _quick_look(needs), at, abridges)


@cache
def _quick_look(needs: Needs) -> Callable[[str], bool] | None:
    """The same function for rules with the same needs, so that `apply` looks once."""
    if isinstance(needs, re.Pattern):
        return lambda text: needs.search(text) is not None
    if isinstance(needs, tuple):
        return lambda text: any(map(text.__contains__, needs))
    return None


def apply(rules: Iterable[Rule], text: str) -> str:
    """`text` after all rules, one after the other."""
    starts: dict[Callable[[str], list[int]], list[int]] = {}
    looks: dict[Callable[[str], bool], bool] = {}
    characters = set(text)
    for each in rules:
        if each.characters is not None and characters.isdisjoint(each.characters):
            continue
        at, holds = each.at, each.holds
        if at is not None:
            if at not in starts:
                starts[at] = at(text)
            if not starts[at]:
                continue
        if holds is not None:
            if holds not in looks:
                looks[holds] = holds(text)
            if not looks[holds]:
                continue
        changed = _apply(each, text, None if at is None else starts[at])
        if changed != text:
            text, characters = changed, set(changed)
            starts.clear()
            looks.clear()
    return text


def _number_starts(text: str) -> Iterator[int]:
    for match in _NUMBER_START.finditer(text):
        start = match.start()
        yield start
        while not text[start].isdecimal():
            start += 1
            yield start


def _apply(each: Rule, text: str, starts: list[int] | None) -> str:
    if starts is None:
        return each.pattern.sub(lambda match: _guarded(match, each), text)
    parts = []
    end = 0
    match_at = each.pattern.match
    for start in starts:
        if start >= end and (match := match_at(text, start)) is not None:
            parts += [text[end:start], _guarded(match, each)]
            end = match.end()
    return "".join([*parts, text[end:]]) if parts else text


def _guarded(match: re.Match[str], each: Rule) -> str:
    words = each.words(match)
    if words is None or not (each.abridges or is_complete(match[0], words)):
        return match[0]
    return _apart(words, match) if _NUMERIC.search(match[0]) else words


def _apart(words: str, match: re.Match[str]) -> str:
    """The words of a number with a space where letters or digits adjoin it."""
    text = match.string
    before = " " if text[max(0, match.start() - 1) : match.start()].isalnum() and words[:1].isalnum() else ""
    behind = " " if text[match.end() : match.end() + 1].isalnum() and words[-1:].isalnum() else ""
    return before + words + behind
