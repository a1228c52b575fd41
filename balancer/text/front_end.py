"""The text front end: from what people send to what is to be said. Pure: text in, text out.

Stages, each a module: entities, characters (Unicode mended), brackets (pauses, tags, control syntax), HTML and SSML,
Markdown, lines (paragraphs), scripts, and the words of the language. The result goes into the cache key and to the
engine.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from balancer.text import characters, chunks, lines, numerals, scripts
from balancer.text.english import speech
from balancer.text.marks import MARKS, PAUSE_MARKS, pause_seconds, tag_of
from balancer.text.markup import brackets, entities, html, markdown
from balancer.text.spoken_text import PARAGRAPH, Span, SpokenText

MAX_GROWTH = 30
"""The result has at most so many characters for each of the text's: a symbol such as `≥` grows most."""

_PAUSED = re.compile(f"([{PAUSE_MARKS}])")
_MARK = re.compile(f"[{MARKS}]")
_SPACES = re.compile(r"[ \t]+")
_ENGLISH = "en"


@dataclass(frozen=True)
class FrontEnd:
    """Prepares texts for one engine, which makes the sounds of `tags`, such as `[laugh]`."""

    tags: tuple[str, ...] = field(default=())

    def prepare(self, text: str, language: str = _ENGLISH) -> SpokenText:
        """The spoken form of `text`.

        Raises ForeignScriptError. The result may be empty: an emoji says nothing.
        """
        text = characters.mend(entities.decode(text), ideographic=language in scripts.IDEOGRAPHIC)
        text = html.remove(brackets.take(text, self.tags))
        text = lines.join(markdown.render(text))
        text = scripts.keep_own(text, language)
        text = chunks.apply(
            speech.spell_out if language == _ENGLISH else partial(numerals.spell_out, language=language), text
        )
        return _spoken(text, self.tags)

    def pass_through(self, text: str) -> str:
        """`text` as it is, but for characters that no engine may get, and for engines' control syntax."""
        return brackets.disarm(characters.drop_controls(text), self.tags)


def _spoken(text: str, tags: Sequence[str]) -> SpokenText:
    spans: list[Span] = []
    paragraphs = [paragraph for paragraph in text.split(PARAGRAPH) if paragraph.strip()]
    for number, paragraph in enumerate(paragraphs, start=1):
        pieces = _PAUSED.split(paragraph)
        for index in range(0, len(pieces), 2):
            content = brackets.disarm(_clean(pieces[index], tags), tags)
            last = index == len(pieces) - 1
            pause = None if last else pause_seconds(pieces[index + 1])
            spans.append(Span(content, pause, ends_paragraph=last and number < len(paragraphs)))
    return SpokenText(tuple(spans))


def _clean(text: str, tags: Sequence[str]) -> str:
    return _SPACES.sub(" ", _MARK.sub(lambda mark: tag_of(tags, mark[0]) or "", text)).strip()
