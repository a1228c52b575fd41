"""How Numba compiles what has to be fast and is in no library."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, cast

from numba import njit

from worker.kernel_cache import CACHE_VARIABLE


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays and numbers as machine code for this host's processor, compiled when it is first called.

    Where `kernel_cache.keep` has said so, it is kept on disk for all workers. Sums may be taken in any order, and
    division by zero gives infinity, as in C. It runs without Python's lock.
    """
    kept = CACHE_VARIABLE in os.environ
    return cast("Callable[..., Any]", njit(fastmath=True, error_model="numpy", nogil=True, cache=kept)(function))
