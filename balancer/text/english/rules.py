"""Rules: a pattern and what is said in its place, applied under the guard's rule."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from balancer.text.guard import is_complete

_DIGIT = re.compile(r"\d")
_NUMERIC = re.compile("[\\d$\u00a2-\u00a5\u20a0-\u20cf]")


@dataclass(frozen=True)
class Rule:
    """A pattern and the words for a match; None leaves the match as it stands."""

    pattern: re.Pattern[str]
    words: Callable[[re.Match[str]], str | None]
    needs: str = ""
    """Characters of which the text must have one, or `0` for any digit; empty: none."""
    abridges: bool = False
    """Whether the words may leave out numbers, such as those of a long address: the guard is not asked then."""

    def applies(self, text: str, *, has_digits: bool) -> bool:
        """Whether the text may have a match: a quick look, to spare the search."""
        if self.needs == "0":
            return has_digits
        return not self.needs or any(character in text for character in self.needs)


def rule(
    pattern: str,
    words: Callable[[re.Match[str]], str | None] | str,
    *,
    needs: str = "",
    flags: int = 0,
    abridges: bool = False,
) -> Rule:
    """A rule; `words` may be a template for `re.Match.expand`."""
    if isinstance(words, str):
        template = words
        return Rule(re.compile(pattern, flags), lambda match: match.expand(template), needs, abridges)
    return Rule(re.compile(pattern, flags), words, needs, abridges)


def apply(rules: Iterable[Rule], text: str) -> str:
    """`text` after all rules, one after the other."""
    has_digits = _DIGIT.search(text) is not None
    for each in rules:
        if each.applies(text, has_digits=has_digits):
            text = each.pattern.sub(lambda match, each=each: _guarded(match, each), text)  # type: ignore[misc]
    return text


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
