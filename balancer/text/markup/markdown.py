"""Markdown (CommonMark and GFM) becomes plain text: emphasis goes, and blocks end as sentences do.

markdown-it parses it; this module renders its tokens. Headings, items, rows and quotes become sentences, code is kept
as it is written, links and images are their texts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token

from balancer.text.markup import maths

_PARSER = (
    MarkdownIt("commonmark", {"html": False})
    .enable(["table", "strikethrough"])
    .disable(["code", "html_block", "entity"])
)

_HINT = re.compile(r"[*_`~$\\\[#>|]|==|^[ \t]*(?:[-+=]|\d{1,9}[.)])(?:[ \t=-]|$)", re.MULTILINE)
"""A text without any of these is no Markdown."""
_PRODUCT = re.compile(r"(?<=\d)\*{1,2}(?=[\w(])")
_COMPARISON = re.compile(r"^(\s*)>(?=\s?=?\s?[\d-])")
_HIGHLIGHT = re.compile(r"(?<![=<>!\w])==(?=\S)([^=\n]{1,2000})(?<=\S)==(?![=\w])")
_TASK = re.compile(r"\A\[[ xX]\]\s+")
_FRONT_MATTER = re.compile(r"\A---\n(?:[\w-]{1,60}:[^\n]{0,500}\n){1,50}---\n")
_FOOTNOTE = re.compile(r"\[\^[\w-]{1,40}\]:?")
_MAX_NESTING = 6

_ENDS = (".", "!", "?", ":", ";", ",", "\u2026")


def render(text: str) -> str:
    """`text` without Markdown. Its paragraphs are set apart by empty lines."""
    if not _HINT.search(text):
        return text
    return _Renderer().result(_tokens(text))


@dataclass(frozen=True)
class Section:
    """A heading, and what stands below it until the next one."""

    level: int
    """1 to 6; 0 for what is before the first heading."""
    heading: str
    text: str
    """Without Markdown, the heading included."""


def sections(text: str) -> list[Section]:
    """`text` without Markdown, cut at its headings."""
    tokens = _tokens(text)
    starts = [index for index, token in enumerate(tokens) if token.type == "heading_open" and not token.level]
    ends = [*starts, len(tokens)]
    found = [Section(0, "", _Renderer().result(tokens[: ends[0]]))] if ends[0] else []
    for start, end in pairwise(ends):
        opening, heading, *_ = part = tokens[start:end]
        found.append(Section(int(opening.tag[1]), _inline(heading.children or []), _Renderer().result(part)))
    return found


def _tokens(text: str) -> list[Token]:
    text = _FRONT_MATTER.sub("", text)
    text = _PRODUCT.sub(lambda product: product[0].replace("*", "\\*"), text)
    text = _FOOTNOTE.sub("", _HIGHLIGHT.sub(r"\1", text))
    text = maths.FORMULA.sub(lambda formula: _escaped(maths.spoken(next(filter(None, formula.groups())))), text)
    if "\n" not in text.strip():
        text = _COMPARISON.sub(r"\1\\>", text)
    return _PARSER.parse(_flattened(text))


def _escaped(text: str) -> str:
    return re.sub(r"([*_`\[\]])", r"\\\1", text)


def _flattened(text: str) -> str:
    """`text` with a bounded nesting of quotes and lists, on which the parser's time depends."""
    return re.sub(rf"^((?:[ \t]*[>*+-]){{{_MAX_NESTING}}})(?:[ \t]*[>*+-])+", r"\1", text, flags=re.MULTILINE)


class _Renderer:
    """Renders the blocks of a text, one token after the other."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._cells: list[str] = []
        self._number = ""
        """The number of a list's item, until its text comes."""
        self._depth: dict[str, int] = dict.fromkeys(("list", "heading", "cell"), 0)

    def result(self, tokens: Sequence[Token]) -> str:
        """The text of all blocks."""
        for token in tokens:
            kind = _KINDS.get(token.type.rpartition("_")[0])
            if kind is not None:
                self._depth[kind] += token.nesting
            if token.type in _HANDLED:
                getattr(self, f"_{token.type}")(token)
        return "".join(self._parts).strip()

    def _list_item_open(self, token: Token) -> None:
        self._number = f"{token.info}. " if token.info else ""

    def _list_item_close(self, _: Token) -> None:
        if self._number:  # the item has no text
            self._parts.append(f"{self._number}\n")
            self._number = ""

    def _bullet_list_close(self, _: Token) -> None:
        if not self._depth["list"]:
            self._parts.append("\n\n")

    _ordered_list_close = _bullet_list_close

    def _tr_close(self, _: Token) -> None:
        self._parts.append(f"{_ended(', '.join(filter(None, self._cells)))}\n")
        self._cells.clear()

    def _table_close(self, _: Token) -> None:
        self._parts.append("\n\n")

    _hr = _table_close

    def _fence(self, token: Token) -> None:
        self._parts.append(f"{_ended(token.content.strip())}\n\n")

    def _inline(self, token: Token) -> None:
        content = _inline(token.children or [])
        if self._depth["cell"]:
            self._cells.append(content)
        elif self._depth["list"]:
            self._parts.append(f"{self._number}{_ended(_TASK.sub('', content, count=1))}\n")
            self._number = ""
        else:
            self._parts.append(f"{_ended(content) if self._depth['heading'] else content}\n\n")


_KINDS = {"bullet_list": "list", "ordered_list": "list", "heading": "heading", "th": "cell", "td": "cell"}
_HANDLED = frozenset(
    "list_item_open list_item_close bullet_list_close ordered_list_close tr_close table_close hr fence inline".split()
)


def _ended(content: str) -> str:
    """`content` with a full stop, unless it ends so already."""
    content = content.rstrip()
    return content if not content or content.rstrip("\"')*_ ").endswith(_ENDS) else f"{content}."


def _inline(tokens: Sequence[Token]) -> str:
    parts = []
    for token in tokens:
        match token.type:
            case "softbreak" | "hardbreak":
                parts.append("\n")
            case "image":
                parts.append(_inline(token.children or []))
            case _:
                parts.append(token.content)
    return "".join(parts)
