"""Bounds the memory of a worker that runs torch, which would grow with every utterance.

For every new length of audio oneDNN compiles its convolutions anew and caches the primitives with buffers as long as
the audio: 20 to 200 MB for one length of Chatterbox's vocoder, up to 1,024 lengths. And the C library does not return
to the system what is freed in the middle of its heap.
"""

from __future__ import annotations

import ctypes
import os

MAX_CACHED_CONVOLUTIONS = 16
"""Convolution primitives cached for the stock runtime: more than one utterance reuses (its flow has a handful of shapes
and runs them 2 to 10 times). 1 costs 5 % of the time, 0 crashes torch 2.6, 1,024 is oneDNN's default."""


MAX_CACHED_BLOCKS = 256
"""Primitives cached for the batched runtime, whose convolutions have the same shapes for every length: those of one
utterance, and the linear layers of steps of different numbers of rows."""


def limit_primitive_cache(capacity: int = MAX_CACHED_CONVOLUTIONS) -> None:
    """Limit oneDNN's primitive cache. Call it before torch is imported, which reads the limit once."""
    for variable in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ[variable] = str(capacity)


def trim_heap() -> None:
    """Return freed memory to the system, if the C library can: it takes 0.1 s after a long utterance."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
