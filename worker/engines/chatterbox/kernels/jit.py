"""How Numba compiles what has to be fast and is in no library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from numba import config, njit

from worker.engines.chatterbox.kernels import openmp
from worker.engines.chatterbox.kernels.disk_cache import folder


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays and numbers as machine code for this host's processor, compiled when it is first called.

    Where `kernel_cache.keep` has said so, it is kept on disk for all workers. Sums may be taken in any order, and
    division by zero gives infinity, as in C. It runs without Python's lock.
    """
    kept = folder()
    # Numba looks at this when a function is made. Others' functions, librosa's for one, have their own place.
    elsewhere, config.CACHE_DIR = config.CACHE_DIR, "" if kept is None else str(kept)
    try:
        made = njit(fastmath=True, error_model="numpy", nogil=True, cache=kept is not None)(function)
    finally:
        config.CACHE_DIR = elsewhere
    return cast("Callable[..., Any]", made)


def shared(function: Callable[..., Any], count: int, *arguments: Any) -> None:
    """Have `function(first, end, *arguments)`, compiled, do `count` items, in as many threads as PyTorch computes in.

    What one item comes to must not depend on the others.
    """
    threads = max(1, min(torch.get_num_threads(), count))
    if threads == 1:
        function(0, count, *arguments)
    else:
        openmp.run(lambda part: function(count * part // threads, count * (part + 1) // threads, *arguments), threads)


@compiled
def aligned(count):  # type: ignore[no-untyped-def]
    """So many int32 zeros from a multiple of 64 bytes on: no vector of 512 bits then lies in two lines of the cache."""
    room = np.zeros(count + 16, np.int32)
    start = (-room.ctypes.data) % 64 // 4
    return room[start : start + count]
