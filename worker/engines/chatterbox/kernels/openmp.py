"""The threads that PyTorch computes in, for kernels of our own.

Threads beside them would do for the arithmetic, but not for the time: PyTorch's wait for their next piece of work
awake, for milliseconds, on the very cores that the others would need. They are those of GNU's OpenMP library, which
comes with PyTorch; where another one does, threads of our own have to do.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch

Part = Callable[[int], object]
"""Does the part of that number."""

_body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def run(part: Part, threads: int) -> None:
    """Have so many threads do the parts 0, 1, … at once. Raises what one of them raised."""
    library = _library()
    if library is None:
        list(_crew(threads).map(part, range(threads)))
        return
    faults: list[BaseException] = []

    def body(_: int | None) -> None:
        try:
            # The library may give fewer threads than were asked for.
            for number in range(library.omp_get_thread_num(), threads, library.omp_get_num_threads()):
                part(number)
        except BaseException as fault:  # noqa: BLE001 - no caller's frame is below: it is raised where one is
            faults.append(fault)

    library.GOMP_parallel(_body(body), None, threads, 0)
    if faults:
        raise faults[0]


@cache
def _library() -> ctypes.CDLL | None:
    """GNU's OpenMP library as PyTorch has loaded it."""
    found = sorted(Path(torch.__file__).parent.glob("lib/libgomp*.so*"))
    if not found:
        return None
    library = ctypes.CDLL(str(found[0]))
    library.GOMP_parallel.argtypes = (_body, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    library.GOMP_parallel.restype = None
    return library


@cache
def _crew(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="kernels")
