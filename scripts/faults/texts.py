"""The utterances of the clients, each with the digest of its audio.

An utterance with the same text, voice and seed has the same audio to the last sample, whichever worker synthesizes it
and however often it is retried. So each text is synthesized once before the faults begin, and all later audio is
compared with that. The recogniser need only check a sample.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from itertools import islice

from balancer.load.texts import TextMix, generate_texts


@dataclass(frozen=True)
class ReferenceUtterance:
    """A text with its seed and the digest of its audio."""

    text: str
    length: str
    """Length class of the text."""
    seed: int
    digest: str = ""
    """Digest of the audio file; empty until the text has been synthesized."""


def draw_utterances(count: int, seed: int) -> list[ReferenceUtterance]:
    """`count` different texts of the built-in mix, without digests; they depend on `seed` alone."""
    rng = random.Random(f"chaos {seed}")
    texts = islice(generate_texts(TextMix(seed), seed=seed, repeat=0, first_number=0), count)
    return [ReferenceUtterance(text.content, text.length or "", rng.randrange(2**32)) for text in texts]


def audio_digest(audio: bytes) -> str:
    """The SHA-256 digest of an audio file."""
    return hashlib.sha256(audio).hexdigest()
