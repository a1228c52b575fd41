"""Tags in brackets: pauses (`[pause 0.8s]`), sounds that some engines make (`[laugh]`), and engines' control syntax.

No text of a client may reach an engine as its control syntax: a bracket that is left is none, so `disarm` has the
last word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from balancer.text.marks import pause_mark, tag_mark
from balancer.text.markup.html import seconds

_BRACKETED = re.compile(r"\[([A-Za-z_][^\[\]\n]{0,40})\](?![(\[])")
_PAUSE = re.compile(r"(?:pause|break|silence|wait)(?:\s*[:=]?\s*([\d.]{1,8}\s*(?:ms|s|sec|seconds?)?))?", re.IGNORECASE)
_UNIT = re.compile(r"\s*(?:sec|seconds?)$", re.IGNORECASE)
_DEFAULT_PAUSE = 0.5

_SOUNDS = frozenset(
    """
    advertisement angry applause breath breathe breathes breathing chuckle chuckles chuckling clears clear-throat
    cough coughs coughing cry crying cries dramatic excited exhale exhales fear gasp gasps gasping giggle giggles
    giggling
    groan groans groaning happy hmm inhale inhales laugh laughs laughing laughter long-pause moan moans music narration
    sad sarcastic scream screams shout shouting shouts shush sigh sighs sighing singing sings sniff sniffs sniffle snore
    sob sobs sobbing surprised swallow throat-clear whisper whispers whispering whistle yawn yawns
    """.split()
)
_SOUND_PHRASES = frozenset(
    ["clear throat", "clears throat", "clearing throat", "deep breath", "short pause", "long pause"]
)
"""Words between brackets that stand for a sound; an engine without it is silent there."""
_CONTROL = re.compile(
    r"<\|[^|<>\n]{0,40}\|>|\[/?(?:START|STOP|UNK|SPACE|PAD|SEP|CLS|MASK|EOT|SOT|BOS|EOS|INST)\]|</?s>"
    r"|<</?SYS>>|<(?:start|end)_of_turn>|<(?:pad|unk|bos|eos|mask)>"
)


def take(text: str, tags: Sequence[str]) -> str:
    """`text` with marks for pauses and for the engine's `tags`, without other sounds and control tokens."""
    if "<" in text or "[" in text:
        text = _CONTROL.sub(" ", text)
    if "[" not in text:
        return text

    def taken(match: re.Match[str]) -> str:
        content = match[1].strip()
        if match[0] in tags:
            return tag_mark(tags, match[0])
        if (pause := _PAUSE.fullmatch(content)) is not None:
            return pause_mark(_length(pause[1]))
        word = content.lower()
        if f"[{word}]" in tags:
            return tag_mark(tags, f"[{word}]")
        if word in _SOUND_PHRASES or word.replace(" ", "-") in _SOUNDS:
            return " "
        return match[0]

    return _BRACKETED.sub(taken, text)


def _length(written: str | None) -> float:
    if written is None:
        return _DEFAULT_PAUSE
    number = _UNIT.sub("s", written.replace(" ", ""))
    length = seconds(number if number.endswith("s") else number + "s")
    return _DEFAULT_PAUSE if length is None else length


def disarm(text: str, tags: Sequence[str] = ()) -> str:
    """`text` in which no engine finds control syntax; brackets become parentheses but for those of `tags`."""
    while (without := _CONTROL.sub(" ", text)) != text:
        text = without
    if "[" not in text and "]" not in text:
        return text
    kept = "|".join(map(re.escape, tags))
    pattern = re.compile(rf"({kept})|[\[\]]" if kept else r"()[\[\]]")
    return pattern.sub(lambda found: found[1] or ("(" if found[0] == "[" else ")"), text)
