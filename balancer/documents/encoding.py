"""Decodes texts in UTF-8, or in UTF-16 with a byte order mark."""

from __future__ import annotations

from codecs import BOM_UTF16_BE, BOM_UTF16_LE

from balancer.documents.document import DocumentError


def decode(content: bytes) -> str:
    """The text; its lines end with a line feed. Raises DocumentError."""
    encoding = "utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DocumentError(f"it is not text in UTF-8 (line {line}): save it again with the encoding UTF-8") from error
    if "\0" in text:
        raise DocumentError("it has bytes that are no text: is it of another type?")
    return text.replace("\r\n", "\n").replace("\r", "\n")
