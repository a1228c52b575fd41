"""The scripts that languages are written in: a text must be in its language's, and foreign words in it are left out."""

from __future__ import annotations

import re
from functools import cache

_LATIN = "A-Za-z\u00aa\u00ba\u00c0-\u024f\u1e00-\u1eff\u2c60-\u2c7f\ua720-\ua7ff"
_CYRILLIC = "\u0400-\u052f\u1c80-\u1c8f"
_HAN = "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_SCRIPTS: dict[str, tuple[str, str]] = {
    "ar": ("Arabic", "\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufefe"),
    "el": ("Greek", "\u0370-\u03ff\u1f00-\u1fff"),
    "he": ("Hebrew", "\u0590-\u05ff\ufb1d-\ufb4f"),
    "hi": ("Devanagari", "\u0900-\u097f\ua8e0-\ua8ff"),
    "ja": ("Japanese", f"{_HAN}\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"),
    "ko": ("Korean", f"{_HAN}\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff"),
    "ru": ("Cyrillic", _CYRILLIC),
    "zh": ("Chinese", f"{_HAN}\u3100-\u312f"),
}
"""Name and letters of the scripts other than Latin, by language. All engines know Latin letters."""

IDEOGRAPHIC = frozenset(["ja", "zh"])
"""Languages with punctuation of their own, and without spaces."""

_LETTER = re.compile(r"[^\W\d_]")
_GREEK_NAMES = "\u0391-\u03c9"
"""Greek letters have names in every language."""
_NUMERIC = "\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u209f\u2150-\u2189\u2460-\u24ff"


class ForeignScriptError(ValueError):
    """A text is in another script than its language; the message names both."""


@cache
def _foreign(language: str) -> re.Pattern[str]:
    # Compiled for the languages that are spoken only: the patterns of all take 20 ms.
    own = _LATIN + _GREEK_NAMES + _NUMERIC + _SCRIPTS.get(language, ("", ""))[1]
    greek = "" if language == "el" else "[\u0370-\u03ff\u1f00-\u1fff]{3,}|"
    return re.compile(
        f"{greek}(?:(?![{own}])[^\\W\\d_])(?:(?![{own}])[\\w\u0300-\u036f\u064b-\u0652\u0900-\u0903\u093a-\u094f\u0e31-\u0e4e])*"
    )


def keep_own(text: str, language: str) -> str:
    """`text` without words in scripts that the language does not have.

    Raises ForeignScriptError if they have most of its letters.
    """
    if text.isascii():
        return text
    pattern = _foreign(language if language in _SCRIPTS else "en")
    foreign = sum(len(_LETTER.findall(word)) for word in pattern.findall(text))
    if not foreign:
        return text
    letters = len(_LETTER.findall(text))
    if foreign * 2 > letters:
        raise ForeignScriptError(
            f"is written in another script than {language!r}, which is spoken here; its script is {script_of(language)}"
        )
    return pattern.sub(" ", text)


def script_of(language: str) -> str:
    """The English name of a language's script."""
    return _SCRIPTS.get(language, ("Latin", ""))[0]
