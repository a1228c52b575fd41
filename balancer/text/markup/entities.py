"""Entities of HTML become their characters."""

from __future__ import annotations

import html
import re

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_MAX_TIMES = 3
"""Texts are escaped twice at times, hardly more often."""


def decode(text: str) -> str:
    """`text` without entities; a mere ampersand stays one."""
    for _ in range(_MAX_TIMES):
        if "&" not in text or (decoded := _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)) == text:
            break
        text = decoded
    return text
