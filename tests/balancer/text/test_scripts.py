"""Scripts of languages."""

from __future__ import annotations

import pytest

from balancer.text.scripts import ForeignScriptError, keep_own, script_of

CHINESE, RUSSIAN, GREEK = "\u4f60\u597d", "\u041f\u0440\u0438\u0432\u0435\u0442", "\u03b1"


@pytest.mark.parametrize(
    ("language", "text", "kept"),
    [
        ("en", "plain", "plain"),
        ("en", f"an apple {CHINESE} here", "an apple   here"),
        ("en", f"the angle {GREEK}", f"the angle {GREEK}"),
        ("zh", f"{CHINESE} OK", f"{CHINESE} OK"),
        ("ru", f"{RUSSIAN} OK", f"{RUSSIAN} OK"),
        ("sw", "habari \u00e9", "habari \u00e9"),
    ],
)
def test_words_in_other_scripts_are_left_out(language: str, text: str, kept: str) -> None:
    assert keep_own(text, language) == kept


@pytest.mark.parametrize(
    ("language", "text"), [("en", CHINESE), ("en", f"{RUSSIAN} a"), ("zh", RUSSIAN), ("ru", CHINESE)]
)
def test_a_text_mostly_in_another_script_is_refused(language: str, text: str) -> None:
    with pytest.raises(ForeignScriptError, match=f"than '{language}'.*its script is {script_of(language)}"):
        keep_own(text, language)


def test_the_script_of_a_language() -> None:
    assert [script_of(language) for language in ("ru", "zh", "de")] == ["Cyrillic", "Chinese", "Latin"]
