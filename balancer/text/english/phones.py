"""Telephone numbers, and numbers of cards and accounts in groups: digit by digit, with a pause between the groups."""

from __future__ import annotations

import re

from balancer.text.english.cardinals import digit_by_digit
from balancer.text.english.rules import At, rule

_GROUP = re.compile(r"\d+")


def _digits(match: re.Match[str]) -> str:
    plus = "plus " if match[0].lstrip("(").startswith("+") else ""
    groups = _GROUP.findall(match[0])
    if plus and len(groups[0]) <= 3 and len(groups) > 1:  # the country's code goes with the next group
        groups = [groups[0] + groups[1], *groups[2:]]
    return plus + ", ".join(map(digit_by_digit, groups))


_END = r"(?![\w]|[-.]\d)"

RULES = (
    rule(
        rf"(?<![\w.-])(?:\+?1[-. ])?(?:\([0-9]{{3}}\)\s?|[0-9]{{3}}[-. ])[0-9]{{3}}[-. ][0-9]{{4}}{_END}",
        _digits,
        at=At.numbers,
    ),
    rule(
        rf"(?<![\w.])\+[0-9]{{1,3}}(?:[- .]?\(?[0-9]{{1,5}}\)?){{1,6}}(?<=[0-9)]){_END}(?<=[0-9]{{2}})",
        _digits,
        needs="+",
        at=At.numbers,
    ),
    rule(rf"(?<![\w.,-])0[0-9]{{2,4}}[ -][0-9]{{3,8}}(?:[ -][0-9]{{2,8}}){{0,3}}{_END}", _digits, at=At.numbers),
    rule(rf"(?<![\w.,-])[0-9]{{3}}-[0-9]{{4}}{_END}", _digits, needs="-", at=At.numbers),
    rule(rf"(?<![\w.,-])[0-9]{{4}}(?:[ -][0-9]{{4}}){{2,4}}{_END}", _digits, at=At.numbers),
    rule(rf"(?<![\w.,-])[0-9]{{2,6}}(?:-[0-9]{{2,8}}){{2,6}}{_END}", _digits, needs="-", at=At.numbers),
    rule(
        r"(?<=\b(?:[Cc]all|[Dd]ial|[Rr]ing|[Tt]ext) )(?:911|999|112|411|211|311|000)(?![\w]|[.,]\d)",
        _digits,
        at=At.numbers,
    ),
)
