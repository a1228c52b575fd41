"""HTML and SSML: tags go, and what they mean for speech stays: breaks, pauses, list items, cells, spoken substitutes.

A text is not a document: it may have a `<` of its own anywhere. So a tag is only what is written as one, with
attributes that have values; code within backticks keeps what it has.
"""

from __future__ import annotations

import html
import re

from balancer.text.marks import pause_mark

_TAG = re.compile(
    r"(?P<code>`{3,}[\s\S]*?(?:`{3,}|\Z)|(?<!`)`[^`\n]{1,500}`(?!`))"
    r"|<!--[\s\S]*?(?:-->|\Z)"
    r"|<!\[CDATA\[(?P<data>[\s\S]*?)\]\]>"
    r"|<[!?][A-Za-z][^<>]{0,300}>"
    r"|<(?P<auto>(?:https?://|mailto:)[^\s<>]{1,2000}|[\w.+-]{1,64}@[\w.-]{1,255})>"
    r"|<(?P<close>/?)(?P<name>[A-Za-z][A-Za-z0-9:_-]{0,30})"
    r"""(?P<attributes>(?:\s{1,20}[\w:@.-]{1,60}(?:\s?=\s?(?:"[^"<]{0,4000}"|'[^'<]{0,4000}'|[^\s"'=<>`]{1,500}))?){0,30})"""
    r"\s{0,20}/?>"
)
_ATTRIBUTE = re.compile(r"""([\w:@.-]{1,60})\s?=\s?(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""")
_BARE_ATTRIBUTES = frozenset(
    "allowfullscreen async autofocus autoplay checked controls default defer disabled hidden loop multiple muted open "
    "readonly required reversed selected".split()
)

_SILENT = frozenset("audio canvas desc head math mark-up metadata noscript object script style svg template".split())
"""Elements whose content is not meant to be heard."""
_BLOCKS = frozenset(
    "address article aside blockquote body center dd details dialog div dl dt fieldset figcaption figure footer "
    "form h1 h2 "
    "h3 h4 h5 h6 header hr html main nav ol p pre section summary table tbody tfoot thead title tr ul speak".split()
)
_INLINE = frozenset(
    "a abbr acronym amazon:effect amazon:domain b bdi bdo big blockcode button cite code data del dfn em "
    "emphasis font i img "
    "input ins kbd label lang link mark meta mstts:express-as option output p phoneme prosody q rp rt ruby s "
    "samp say-as "
    "select small span strike strong sub sup time tt u var video voice w wbr token lexicon word".split()
)
_BREAK_STRENGTHS = {"none": 0.0, "x-weak": 0.1, "weak": 0.25, "medium": 0.5, "strong": 0.8, "x-strong": 1.2}
_TIME = re.compile(r"\s*([0-9]{1,6}(?:\.[0-9]{1,6})?|\.[0-9]{1,6})\s*(ms|s)\s*", re.IGNORECASE)


def seconds(duration: str) -> float | None:
    """The seconds of a duration of SSML such as `800ms` or `1.5s`; None for anything else."""
    if (time := _TIME.fullmatch(duration)) is None:
        return None
    return float(time[1]) / (1000 if time[2].lower() == "ms" else 1)


def remove(text: str) -> str:
    """`text` without tags. Paragraphs, items and cells are set apart as Markdown does it."""
    if "<" not in text or ">" not in text:
        return text
    return _Remover(text).result()


class _Remover:
    """One pass over a text; it knows in which elements it is."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lower = text.lower()
        self._parts: list[str] = []
        self._position = 0
        self._silent: str | None = None
        self._spelled = False
        self._replaced: str | None = None

    def result(self) -> str:
        for match in _TAG.finditer(self._text):
            self._add(self._text[self._position : match.start()])
            self._position = match.end()
            self._tag(match)
        self._add(self._text[self._position :])
        return "".join(self._parts)

    def _add(self, content: str) -> None:
        if self._silent is not None or self._replaced is not None:
            return
        self._parts.append(" ".join(content.strip()) if self._spelled else content)

    def _tag(self, match: re.Match[str]) -> None:
        if match["code"] is not None:
            self._add(match["code"])
        elif match["data"] is not None:
            self._add(match["data"])
        elif match["auto"] is not None:
            self._add(match["auto"].removeprefix("mailto:"))
        elif match["name"] is not None:
            self._element(match)

    def _element(self, match: re.Match[str]) -> None:
        name, closes = match["name"].lower(), bool(match["close"])
        attributes = {key.lower(): a or b or c for key, a, b, c in _ATTRIBUTE.findall(match["attributes"])}
        bare = set(_ATTRIBUTE.sub("", match["attributes"]).lower().split())
        if not bare <= _BARE_ATTRIBUTES:  # "a<b and c>d", "<your name>"
            words = " ".join((match["name"] + match["attributes"]).split())
            self._add(match[0] if name in _INLINE or name in _BLOCKS else f" {words} ")
            return
        known = (
            name in _INLINE
            or name in _BLOCKS
            or name in _SILENT
            or name in ("br", "break", "li", "td", "th", "sentence")
        )
        if self._silent is not None:
            if closes and name == self._silent:
                self._silent = None
        elif not known and not closes and not self._is_closed(name, match) and not match[0].endswith("/>"):
            self._add(f" {match['name']} ")  # a placeholder, or a type's parameter
        elif name in _SILENT and not closes:
            if self._is_closed(name, match):
                self._silent = name
        elif name == "sub" and "alias" in attributes and self._is_closed(name, match):
            self._add(f" {html.unescape(attributes['alias'])} ")
            self._replaced = name
        elif closes and name == self._replaced:
            self._replaced = None
        elif name == "say-as":
            self._spelled = False  # for the space
            self._add(" ")
            self._spelled = not closes and attributes.get("interpret-as") in ("characters", "spell-out")
        else:
            self._add(_sound(name, closes, attributes))

    def _is_closed(self, name: str, opening: re.Match[str]) -> bool:
        return self._lower.rfind(f"</{name}") >= opening.end()


def _sound(name: str, closes: bool, attributes: dict[str, str]) -> str:
    """The replacement of a tag."""
    if name == "break":
        length = seconds(attributes.get("time", ""))
        return pause_mark(_BREAK_STRENGTHS.get(attributes.get("strength", ""), 0.5) if length is None else length)
    if name == "img":
        return f" {html.unescape(attributes.get('alt', ''))} "
    if name in _BLOCKS:
        return "\n\n"
    return (_AT_END if closes else _AT_START).get(name, "")


_AT_START = {"br": "\n", "li": "\n- "}
_AT_END = {"br": "\n", "li": "\n", "td": ", ", "th": ", ", "s": " ", "sentence": " "}
