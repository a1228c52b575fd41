"""Compiles kernels: Numba turns functions of arrays and numbers into machine code for this host's processor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
from numba import config, njit

from worker.engines.chatterbox.kernels import disk_cache
from worker.engines.chatterbox.kernels.compile_lock import compile_once

P = ParamSpec("P")
T = TypeVar("T")

ArrayF32 = npt.NDArray[np.float32]
ArrayI8 = npt.NDArray[np.int8]
ArrayI32 = npt.NDArray[np.int32]
ArrayI64 = npt.NDArray[np.int64]
ArrayQuantized = npt.NDArray[np.integer[Any]]
"""Quantized activations, see `quantize.ACTIVATION_DTYPE`."""


def jit(function: Callable[P, T]) -> Callable[P, T]:
    """Compile a function when it is first called with arguments of some types; Numba ignores its annotations.

    The machine code is cached in the folder of `disk_cache`, if that is enabled before the module of the function is
    loaded; then one process compiles it while others wait. Sums may be taken in any order, and division by zero gives
    infinity, as in C. The code runs without Python's global lock.
    """
    folder = disk_cache.folder()
    # Numba reads this when a function is decorated; functions of other libraries, such as librosa, keep their folder.
    others_folder, config.CACHE_DIR = config.CACHE_DIR, "" if folder is None else str(folder)
    try:
        dispatcher: Callable[P, T] = njit(fastmath=True, error_model="numpy", nogil=True, cache=folder is not None)(
            function
        )
    finally:
        config.CACHE_DIR = others_folder
    if folder is not None:
        compile_once(dispatcher, folder)
    return dispatcher


@jit
def aligned_zeros(count: int) -> ArrayI32:
    """int32 zeros that start at a multiple of 64 bytes, so that no 512-bit vector lies across two cache lines."""
    memory = np.zeros(count + 16, np.int32)
    start = (-memory.ctypes.data) % 64 // 4
    return memory[start : start + count]
