"""Runs kernels in the threads that PyTorch computes in: those of GNU's OpenMP library, which comes with PyTorch.

A second pool of threads would cost time: PyTorch's threads wait for their next work awake, for milliseconds, on the
cores that the second pool needs. Where PyTorch comes with another OpenMP library, a pool of our own has to do.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch

_outlined = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
"""The type of the function that GOMP_parallel runs in each thread."""


def parallel_for(function: Callable[..., object], count: int, *arguments: Any) -> None:
    """Split `count` items among PyTorch's threads: each calls `function(begin, end, *arguments)` for a range of them.

    An item's result must not depend on the others. Raises what a call raised.
    """
    threads = max(1, min(torch.get_num_threads(), count))
    if threads == 1:
        function(0, count, *arguments)
    else:
        parallel(lambda part: function(count * part // threads, count * (part + 1) // threads, *arguments), threads)


def parallel(body: Callable[[int], object], threads: int) -> None:
    """Call `body(0)`, …, `body(threads - 1)` at once, in a thread each. Raises what one of the calls raised."""
    library = _library()
    if library is None:
        list(_thread_pool(threads).map(body, range(threads)))
        return
    errors: list[BaseException] = []

    def outlined(_: int | None) -> None:
        try:
            # The library may give fewer threads than were asked for.
            for number in range(library.omp_get_thread_num(), threads, library.omp_get_num_threads()):
                body(number)
        except BaseException as error:  # noqa: BLE001 - no Python frame lies below: it is raised again by `parallel`
            errors.append(error)

    library.GOMP_parallel(_outlined(outlined), None, threads, 0)
    if errors:
        raise errors[0]


@cache
def _library() -> ctypes.CDLL | None:
    """GNU's OpenMP library as PyTorch has loaded it; None where PyTorch comes with another."""
    found = sorted(Path(torch.__file__).parent.glob("lib/libgomp*.so*"))
    if not found:
        return None
    library = ctypes.CDLL(str(found[0]))
    library.GOMP_parallel.argtypes = (_outlined, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    library.GOMP_parallel.restype = None
    return library


@cache
def _thread_pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="kernels")
