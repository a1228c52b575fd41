"""English speech recognition with pocketsphinx, and the words of a text as pocketsphinx writes them.

Imports no PyTorch, so that scripts and tests can use it where PyTorch is not installed.
"""

from __future__ import annotations

import re
from functools import cache
from threading import Lock
from typing import Any

SAMPLE_RATE = 16_000
"""Samples per second of the audio that pocketsphinx takes."""

MAX_HMMS_PER_FRAME = 2000
MAX_WORD_EXITS_PER_FRAME = 20
"""Hypotheses that the recogniser follows at once, and words that may end, in 10 ms of audio. Without these bounds it
takes 1.3 to 1.7 times as long for the same word errors: 54 in 828 words of the embedded voice."""

_TAG = re.compile(r"\[[^\]]*\]")
"""Turbo's tags for laughs, sighs and the like, which are not words."""

_LOCK = Lock()
"""Held by whoever uses the decoder."""


def words(text: str) -> list[str]:
    """The words of a text as a recogniser writes them: letters and apostrophes, in lower case."""
    plain = _TAG.sub(" ", text.lower()).replace("\u2019", "'")
    return "".join(letter if letter.isalpha() or letter == "'" else " " for letter in plain).split()


def recognise(pcm: bytes) -> str:
    """The words in signed 16-bit little-endian mono PCM at SAMPLE_RATE, in lower case."""
    with _LOCK:
        decoder = _decoder()
        # It adapts to the loudness of each band: without this, one that is used again would recognise differently.
        decoder.reinit_feat()
        decoder.start_utt()
        decoder.process_raw(pcm, full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        return hypothesis.hypstr if hypothesis is not None else ""


@cache
def _decoder() -> Any:
    """The decoder of this process: to load its models takes as long as to recognise two seconds."""
    from pocketsphinx import Decoder  # noqa: PLC0415 - optional: the extra `check` brings it

    return Decoder(samprate=SAMPLE_RATE, loglevel="FATAL", maxhmmpf=MAX_HMMS_PER_FRAME, maxwpf=MAX_WORD_EXITS_PER_FRAME)
