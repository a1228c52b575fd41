"""Markdown (CommonMark and GFM) becomes plain text: emphasis goes, and blocks end as sentences do.

markdown-it parses it; this module renders its tokens. Headings, items, rows and quotes become sentences, code is kept
as it is written, links and images are their texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

from balancer.text.markup import maths

_PARSER = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable(["code", "html_block", "entity"])

_HINT = re.compile(r"[*_`~$\\\[#>|]|==|^[ \t]*(?:[-+=]|\d{1,9}[.)])(?:[ \t=-]|$)", re.MULTILINE)
"""A text without any of these is no Markdown."""
_PRODUCT = re.compile(r"(?<=\d)\*{1,2}(?=[\w(])")
_COMPARISON = re.compile(r"^(\s*)>(?=\s?=?\s?[\d-])")
_HIGHLIGHT = re.compile(r"(?<![=<>!\w])==(?=\S)([^=\n]{1,2000})(?<=\S)==(?![=\w])")
_TASK = re.compile(r"\[[ xX]\]\s+")
_FRONT_MATTER = re.compile(r"\A---\n(?:[\w-]{1,60}:[^\n]{0,500}\n){1,50}---\n")
_FOOTNOTE = re.compile(r"\[\^[\w-]{1,40}\]:?")
_MAX_NESTING = 6

_ENDS = (".", "!", "?", ":", ";", ",", "\u2026")


def render(text: str) -> str:
    """`text` without Markdown. Its paragraphs are set apart by empty lines."""
    if not _HINT.search(text):
        return text
    text = _FRONT_MATTER.sub("", text)
    text = _PRODUCT.sub(lambda product: product[0].replace("*", "\\*"), text)
    text = _FOOTNOTE.sub("", _HIGHLIGHT.sub(r"\1", text))
    text = maths.FORMULA.sub(lambda formula: _escaped(maths.spoken(next(filter(None, formula.groups())))), text)
    if "\n" not in text.strip():
        text = _COMPARISON.sub(r"\1\\>", text)
    return "".join(_blocks(_PARSER.parse(_flattened(text)))).strip()


def _escaped(text: str) -> str:
    return re.sub(r"([*_`\[\]])", r"\\\1", text)


def _flattened(text: str) -> str:
    """`text` with a bounded nesting of quotes and lists, on which the parser's time depends."""
    return re.sub(rf"^((?:[ \t]*[>*+-]){{{_MAX_NESTING}}})(?:[ \t]*[>*+-])+", r"\1", text, flags=re.MULTILINE)


def _blocks(tokens: Sequence[Token]) -> Iterator[str]:
    """The texts of the blocks, each with the break behind it."""
    number = ""
    in_list = 0
    cells: list[str] = []
    in_heading = in_cell = False
    for token in tokens:
        match token.type:
            case "heading_open":
                in_heading = True
            case "heading_close":
                in_heading = False
            case "bullet_list_open" | "ordered_list_open":
                in_list += 1
            case "bullet_list_close" | "ordered_list_close":
                in_list -= 1
                if not in_list:
                    yield "\n\n"
            case "list_item_open":
                number = f"{token.info}. " if token.info else ""
            case "list_item_close":
                if number:  # an item without a text
                    yield f"{number}\n"
                    number = ""
            case "th_open" | "td_open":
                in_cell = True
            case "th_close" | "td_close":
                in_cell = False
            case "tr_close":
                yield f"{_ended(', '.join(filter(None, cells)))}\n"
                cells.clear()
            case "table_close" | "hr":
                yield "\n\n"
            case "fence":
                yield f"{_ended(token.content.strip())}\n\n"
            case "inline":
                content = _inline(token.children or [])
                if in_cell:
                    cells.append(content)
                elif in_list:
                    yield f"{number}{_ended(_TASK.sub('', content, count=1) if content.startswith('[') else content)}\n"
                    number = ""
                else:
                    yield f"{_ended(content) if in_heading else content}\n\n"


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
