"""The speakable text of a page of an EPUB. selectolax parses it; this module renders the nodes.

Headings, items, rows and quotes become sentences, as those of Markdown do. Pictures, and notes with the marks that
refer to them, are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from selectolax.lexbor import LexborHTMLParser, LexborNode

_SILENT = frozenset("audio head iframe img math nav noscript object rp rt script style svg template video".split())
_SILENT_TYPES = frozenset("noteref footnote footnotes endnote endnotes rearnote pagebreak".split())
"""Values of `epub:type`."""
_SENTENCES = frozenset("h1 h2 h3 h4 h5 h6 li tr dt dd figcaption caption".split())
_BLOCKS = _SENTENCES | frozenset(
    "address article aside blockquote body center details div dl fieldset figure footer form header hr main ol p pre "
    "section summary table tbody tfoot thead ul".split()
)
_CELLS = frozenset({"td", "th"})
_HEADINGS = ("h1", "h2", "h3")
_VOID = "area|base|br|col|embed|hr|img|input|link|meta|source|track|wbr"
_SELF_CLOSED = re.compile(
    rf"""<(?!(?:{_VOID})[\s/])([A-Za-z][\w:.-]*)((?:\s+[\w:.-]+\s*=\s*(?:"[^"<]*"|'[^'<]*'))*)\s*/>"""
)
_INTERNAL_SUBSET = re.compile(r"\A((?:\s*<\?xml[^>]{0,200}>)?\s*<!DOCTYPE[^\[>]{0,1000})\[[^\]]{0,10000}\]")
_SPACES = re.compile(r"[ \t\r\n\f]+")
_BREAKS = re.compile(r" *\n[ \n]*\n *")
_AROUND_LINES = re.compile(r" *\n *")
_ENDS = (".", "!", "?", ":", ";", ",", "\u2026")


@dataclass(frozen=True)
class Page:
    """A page of a book."""

    title: str
    """Its first heading, else the title of its head; empty without either."""
    text: str


def read(markup: str) -> Page:
    """The page."""
    tree = _parsed(markup)
    if tree.body is None:
        return Page("", "")
    heading = next((found for name in _HEADINGS if (found := tree.body.css_first(name)) is not None), None)
    title = heading if heading is not None else tree.css_first("head > title")
    text = _tidy("".join(_rendered(tree.body)))
    return Page("" if title is None else _tidy(_SPACES.sub(" ", title.text())), text)


def _parsed(markup: str) -> LexborHTMLParser:
    # What a parser of HTML takes for something else: to it, `<title/>` begins a title that goes on to the page's end.
    return LexborHTMLParser(_SELF_CLOSED.sub(r"<\1\2></\1>", _INTERNAL_SUBSET.sub(r"\1", markup)))


def _rendered(root: LexborNode) -> list[str]:
    """The pieces of the text. Without recursion: a page may nest its elements a million times."""
    parts: list[str] = []
    node, preformatted = root, 0
    while True:
        entered = node.child is not None and not _is_silent(node)
        if node.is_text_node:
            content = node.text_content or ""
            parts.append(content if preformatted else _SPACES.sub(" ", content))
        elif not _is_silent(node):
            _open(node.tag or "", parts)
        if entered and node.child is not None:
            preformatted += node.tag == "pre"
            node = node.child
            continue
        while True:
            if node.is_element_node and not _is_silent(node):
                _close(node.tag or "", parts)
            if node.mem_id == root.mem_id:
                return parts
            if node.next is not None:
                node = node.next
                break
            if node.parent is None:
                return parts
            node = node.parent
            preformatted -= node.tag == "pre"


def _open(tag: str, parts: list[str]) -> None:
    if tag == "br":
        parts.append("\n")
    elif tag in _BLOCKS:
        parts.append("\n" if tag in ("li", "tr") else "\n\n")


def _close(tag: str, parts: list[str]) -> None:
    if tag in _CELLS:
        parts.append(", ")
    elif tag in _SENTENCES:
        _end_sentence(parts)
    if tag in _BLOCKS and tag not in ("li", "tr"):
        parts.append("\n\n")


def _end_sentence(parts: list[str]) -> None:
    """Put a full stop behind the last words, unless they have an end."""
    while parts and not parts[-1].strip(" "):
        parts.pop()
    if parts and parts[-1] == ", ":  # behind the last cell of a row
        parts.pop()
    if parts and (last := parts[-1].rstrip()) and not last.rstrip("\"'\u201d\u2019)*_ ").endswith(_ENDS):
        parts[-1] = f"{last}."


def _is_silent(node: LexborNode) -> bool:
    if not node.is_element_node:
        return not node.is_text_node
    if node.tag in _SILENT:
        return True
    attributes = node.attributes
    if not attributes:
        return False
    kinds = (attributes.get("epub:type") or "").split()
    role = (attributes.get("role") or "").removeprefix("doc-")
    return (
        "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or not _SILENT_TYPES.isdisjoint([*kinds, role])
    )


def _tidy(text: str) -> str:
    return _AROUND_LINES.sub("\n", _BREAKS.sub("\n\n", text.replace("\u00ad", ""))).strip()


def links(markup: str) -> list[tuple[str, str]]:
    """The targets and words of the links of a table of contents."""
    tree = _parsed(markup)
    navigations = [nav for nav in tree.css("nav") if "toc" in (nav.attributes.get("epub:type") or "").split()]
    found = (navigations[0] if navigations else tree).css("a[href]")
    return [(link.attributes["href"] or "", _tidy(_SPACES.sub(" ", link.text()))) for link in found]
