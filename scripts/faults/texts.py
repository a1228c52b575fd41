"""What the clients ask for, and what they must hear: each text is spoken once in peace, and its audio remembered.

An utterance of one text, voice and seed is the same to the last sample, whichever worker speaks it and however often it
has to begin anew. So whatever comes under fire is compared with it in whole, and the recogniser only has to judge what
was spoken in peace, and a sample of the rest.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from itertools import islice

from scripts.load.texts import TextMix, generate_texts


@dataclass(frozen=True)
class Line:
    """A text with its seed, and the digest of the audio that it must have."""

    text: str
    length: str
    seed: int
    digest: str = ""


def lines(number: int, seed: int) -> list[Line]:
    """So many texts of the built-in mix, all different, settled by `seed`."""
    rng = random.Random(f"chaos {seed}")
    drawn = islice(generate_texts(TextMix(seed), seed=seed, repeat=0, first_number=0), number)
    return [Line(text.content, text.length or "", rng.randrange(2**32)) for text in drawn]


def digest(audio: bytes) -> str:
    """What stands for an audio file."""
    return hashlib.sha256(audio).hexdigest()
