"""Rules: patterns and their words, when they are tried, and the guard that holds for all."""

from __future__ import annotations

import re

from balancer.text.english.rules import At, apply, rule


def test_rules_are_applied_one_after_the_other() -> None:
    assert apply([rule("a", "b"), rule("b", "c")], "ab") == "cc"


def test_words_may_be_a_template_or_leave_the_match() -> None:
    assert apply([rule(r"(\w)-(\w)", r"\2 \1")], "a-b") == "b a"
    assert apply([rule("x", lambda match: None)], "x") == "x"


def test_a_number_that_the_words_leave_out_stays() -> None:
    assert apply([rule("5 cats", "many cats")], "5 cats") == "5 cats"
    assert apply([rule("5 cats", "five cats")], "5 cats") == "five cats"
    assert apply([rule("5 cats", "many cats", abridges=True)], "5 cats") == "many cats"


def test_words_of_a_number_are_set_apart_from_what_adjoins_it() -> None:
    assert apply([rule("[0-9]", "five")], "x5y") == "x five y"


def test_needs_spare_the_search() -> None:
    tried = []

    def words(match: re.Match[str]) -> str:
        tried.append(match.string)
        return "!"

    for needs in ("#", ("#", "##"), re.compile("#")):
        assert apply([rule("a", words, needs=needs)], "a") == "a"
        assert apply([rule("a", words, needs=needs)], "a#") == "!#"
    assert tried == ["a#"] * 3


def test_a_rule_may_begin_at_numbers_or_capitals_alone() -> None:
    assert apply([rule("[0-9]+", "five", at=At.numbers)], "a 5 b") == "a five b"
    assert apply([rule("[A-Za-z]+", "x", at=At.capitals)], "ab Cd") == "ab x"
    assert apply([rule("[A-Za-z]+", "x", at=At.numbers)], "ab") == "ab"
