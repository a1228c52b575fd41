"""Keeps the memory of a worker that runs torch from growing with every utterance.

Utterances differ in length, and for each length that it has not seen torch's CPU library builds its convolutions anew
and keeps them, with buffers as long as the audio: 20 to 200 MB for one length of Chatterbox's vocoder, up to 1,024 of
them. And what the C library frees in the middle of its heap it keeps to itself.
"""

from __future__ import annotations

import ctypes
import os

KEPT_CONVOLUTIONS = 16
"""More than one utterance uses again and again (its flow has a handful of shapes and runs them 2 to 10 times); less
than would be held for its own sake. One costs 5 % of the time, 0 crashes torch 2.6, 1,024 is the default."""


KEPT_BLOCKS = 256
"""For an engine whose convolutions have the same shapes for every length: all of one utterance's, and the products of
steps of different numbers of rows."""


def bound_caches(kept: int = KEPT_CONVOLUTIONS) -> None:
    """Limit what torch's library of convolutions keeps. To be called before torch loads, which is when it is read."""
    for variable in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ[variable] = str(kept)


def give_back() -> None:
    """Return freed memory to the system, where the C library knows how: a tenth of a second after long utterances."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
