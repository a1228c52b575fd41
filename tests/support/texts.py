"""Texts with the readings that are right, and how readings are compared: by words."""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "balancer" / "text"

_HYPHEN = re.compile("[-\u2010-\u2014]")
_PUNCTUATION = re.compile(r"[^\w\s]|_")
_SOUNDS_ALIKE = {"reed": "read", "lyve": "live", "leed": "lead", "tails": "tales"}
"""How readings of homographs are written: the front end leaves the words, their sound is the engine's."""


@dataclass(frozen=True)
class TextCase:
    """A text and its acceptable readings; none: any will do."""

    kind: str
    text: str
    readings: tuple[str, ...]

    def accepts(self, said: str) -> bool:
        """Whether `said` has the words of a reading."""
        return not self.readings or words_of(said) in map(words_of, self.readings)


def words_of(text: str) -> list[str]:
    """The words of a text: lower case, without punctuation and hyphens."""
    plain = _PUNCTUATION.sub("", _HYPHEN.sub(" ", unicodedata.normalize("NFC", text).lower()))
    return [_SOUNDS_ALIKE.get(word, word) for word in plain.split()]


def text_cases(name: str) -> list[TextCase]:
    """The cases of a file in `tests/balancer/text`."""
    cases = json.loads((FOLDER / name).read_text())
    return [TextCase(case["kind"], case["text"], tuple(case["readings"])) for case in cases]
