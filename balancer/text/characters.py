"""Mends the characters of a text: encoding, invisible and look-alike characters, other scripts' digits and punctuation.

The result is in NFC, with line feeds as its only line breaks, and has no control, format or private-use character.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from ftfy import TextFixerConfig, fix_text

_CONFIG = TextFixerConfig(
    unescape_html=False,  # the markup's stage does it
    uncurl_quotes=False,  # look-alikes that ftfy does not know are in _REPLACED
    fix_character_width=False,  # it would widen katakana
    fix_latin_ligatures=False,
    normalization=None,
    explain=False,
)

_LINE_BREAKS = re.compile(r"\r\n?|[\v\f\x85\u2028]")
_TERMINAL = re.compile(r"\x1b\[[0-9;?]{0,20}[A-Za-z]")
"""Escape sequences that colour the text of terminals."""
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_KEYCAP = re.compile("([0-9])\ufe0f?\u20e3")
_LOST_APOSTROPHE = re.compile("(?<=[a-z])\ufffd(?=[a-z])", re.IGNORECASE)
_STROKES = re.compile("[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")
"""Combining marks of Latin and symbols: NFC has composed those that belong to a letter."""
_SPACED_PUNCTUATION = re.compile("\\s*([\u3001\u3002\uff01\uff0c\uff0e\uff1a\uff1b\uff1f\u061f\u060c\u061b\u0964])\\s*")
_APOSTROPHE_TICK = re.compile(r"(?<=[A-Za-z])[`\u00b4](?=(?:t|s|m|d|ll|re|ve)\b)", re.IGNORECASE)
_TEX_QUOTES = re.compile(r"``([^`'\n]{1,300})''")
_WORD = re.compile(r"[^\W\d_]+")
_LOOK_ALIKE = re.compile("[\u0370-\u03ff\u0400-\u04ff\u0500-\u052f]")
_LATIN = re.compile("[A-Za-z]")

_PUNCTUATION = dict(zip("、。！，．：；？؟،؛।", ",.!,.:;??,;.", strict=True))

_LOOK_ALIKES = str.maketrans(
    "АВЕЅІЈКМНОРСТУХавеѕіјкорстухһԁԛԝΑΒΕΖΗΙΚΜΝΟΡΤΥΧονυ", "ABESIJKMHOPCTYXaBesijkopctyxhdqwABEZHIKMNOPTYXovu"
)  # fmt: skip
"""Cyrillic and Greek letters that look like Latin ones."""

_REPLACED: dict[int, str] = {
    **dict.fromkeys(map(ord, "‘’ʼ‛ʹ＇′ʻ\u02b9"), "'"),
    **dict.fromkeys(map(ord, "“”„‟″«»‹›＂「」『』〝〞"), '"'),
    **dict.fromkeys(map(ord, "‐‑⁃－\u2011"), "-"),
    **dict.fromkeys(map(ord, "−﹣"), "-"),
    **dict.fromkeys(map(ord, "—―⸺⸻─━﹘"), " — "),
    **dict.fromkeys(map(ord, "‒"), "–"),
    **dict.fromkeys(map(ord, "…⋯"), "..."),
    **dict.fromkeys(map(ord, "•▪▫■□●○◦‣⁌⁍◆◇▶►▸·∙"), " \u2022 "),
    **dict.fromkeys(map(ord, "⁄∕／"), "/"),
    **dict.fromkeys(map(ord, "（【〔［"), " ("),
    **dict.fromkeys(map(ord, "）】〕］"), ") "),
    **dict.fromkeys(map(ord, "〜～∼"), "~"),
    **dict.fromkeys(map(ord, "✱＊∗⁎"), "*"),
    **dict(zip(map(ord, "ʜᴇʟᴏᴀʙᴄᴅꜰɢɪᴊᴋᴍɴᴘʀꜱᴛᴜᴠᴡʏᴢ"), "heloabcdfgijkmnprstuvwyz", strict=True)),
    ord("µ"): "μ",
    ord("º"): "°",
    ord("˚"): "°",
}

_COMPATIBLE = (
    (0xFF01, 0xFF5E),  # full-width forms
    (0xFFE0, 0xFFE6),
    (0x1D400, 0x1D7FF),  # mathematical letters and digits
    (0xFB00, 0xFB06),  # ligatures
    (0x2100, 0x214F),  # letter-like symbols
    (0x24B6, 0x24E9),  # letters in circles
    (0x1F110, 0x1F14A),
    (0x3300, 0x33FF),  # units in one character
    (0x32CC, 0x32CF),
)
"""Ranges of characters that are spoken as their compatible forms."""
_KEPT_SYMBOLS = "\u2116\u2117\u2120\u2122\u2126\u212e"

_SPOKEN_SYMBOLS = frozenset("\u00a9\u00ae\u00b0\u2117\u2120\u2122\u2116\u2190\u2191\u2192\u2193\u21d2\u2794\u27a1")
"""The others of their category are emoji and ornaments, which say nothing."""

_ROMAN = ((0x2160, 0x2188),)
"""Roman numerals in one character."""
_MODIFIERS = ((0xFE00, 0xFE0F), (0x1F3FB, 0x1F3FF))
"""Variation selectors, and colours of skin."""
_ENCLOSED = ((0x2460, 0x249B), (0x24EA, 0x24EA), (0x24F5, 0x24FE), (0x2776, 0x2793), (0x1F100, 0x1F10A))
"""Numbers within circles, brackets or before a full stop."""

_LONG_BLANKS = re.compile(r"\s{65,}+")


def mend(text: str, *, ideographic: bool = False) -> str:
    """`text` with its characters mended; an `ideographic` text keeps its own punctuation."""
    text = _shorten_blanks(_TERMINAL.sub("", _LINE_BREAKS.sub("\n", text)))
    if text.isascii():
        return _ascii(_CONTROLS.sub("", text))
    text = _LINE_BREAKS.sub("\n", fix_text(text, _CONFIG)).replace("\u2029", "\n\n")
    text = _KEYCAP.sub(r"\1. ", text)
    text = _LOST_APOSTROPHE.sub("'", text)
    text = unicodedata.normalize("NFC", text)
    if not ideographic:
        text = _SPACED_PUNCTUATION.sub(_punctuation, text)
    text = "".join(map(_mended_ideographic if ideographic else _mended, text))
    text = _STROKES.sub("", unicodedata.normalize("NFC", text))
    if _LOOK_ALIKE.search(text):
        text = _WORD.sub(_one_script, text)
    return _shorten_blanks(_ascii(text))


def drop_controls(text: str) -> str:
    """`text` without control characters; other line breaks become line feeds."""
    return _CONTROLS.sub("", _shorten_blanks(_LINE_BREAKS.sub("\n", text)))


def _shorten_blanks(text: str) -> str:
    """`text` without long runs of white space, for which later stages would take a time that grows with its square."""
    return _LONG_BLANKS.sub(lambda run: "\n\n" if run[0].count("\n") > 1 else "\n" if "\n" in run[0] else " ", text)


def _ascii(text: str) -> str:
    text = _APOSTROPHE_TICK.sub("'", text)
    return _TEX_QUOTES.sub(r'"\1"', text)


def _punctuation(match: re.Match[str]) -> str:
    before, behind = match.string[: match.start()][-1:], match.string[match.end() :][:1]
    between_digits = before.isdecimal() and behind.isdecimal()
    space = "" if not behind or (between_digits and len(match[0]) == 1) else "\n" if "\n" in match[0] else " "
    return _PUNCTUATION[match[1]] + space


def _one_script(match: re.Match[str]) -> str:
    """A word with Latin letters and their look-alikes, in Latin letters; other words as they are."""
    latin = match[0].translate(_LOOK_ALIKES)
    return latin if _LATIN.search(match[0]) and latin.isascii() else match[0]


def _mended_ideographic(character: str) -> str:
    is_own = character > "\u2fff" and unicodedata.category(character)[0] == "P"
    return character if is_own else _mended(character)


@lru_cache(maxsize=4096)
def _mended(character: str) -> str:
    if character < "\x7f":
        return "" if _CONTROLS.match(character) else character
    code = ord(character)
    if code in _REPLACED:
        return _REPLACED[code]
    if _is_within(code, _ENCLOSED):
        return f"{int(unicodedata.numeric(character))}. "
    if _is_within(code, _ROMAN) and (value := int(unicodedata.numeric(character, 0))):
        return str(value)
    if _is_within(code, _COMPATIBLE) and character not in _KEPT_SYMBOLS:
        return unicodedata.normalize("NFKC", character)
    return _by_category(character)


def _by_category(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category == "Zs" or (category == "So" and character not in _SPOKEN_SYMBOLS):
        return " "
    says_nothing = category in ("Cc", "Cf", "Cs", "Co", "Cn") or _is_within(ord(character), _MODIFIERS)
    return "" if says_nothing else character


def _is_within(code: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= code <= last for first, last in ranges)
