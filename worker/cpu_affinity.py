"""CPU affinity and thread limits of this process, set before any numerical library is imported.

OpenMP, MKL and OpenBLAS read their limits once, at import, and size their pools by the affinity mask.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "20000"}
"""The wait of OpenMP's threads for the next parallel region: awake for some tenths of a millisecond, then asleep.

For longer, they would burn the core that the next utterance needs. Asleep at once, they would have to be woken for each
layer: with two threads a step of Turbo's decoder in int8 took 1.4 times as long as with one.
"""

NUMERICAL_LIBRARIES = ("numpy", "scipy", "torch", "onnxruntime")


class AffinityError(RuntimeError):
    """The process cannot be pinned or limited as requested; the message says why."""


def confine(cpus: Iterable[int], threads: int) -> None:
    """Pin the process to `cpus` (CPU numbers) and limit every numerical library to `threads` threads.

    Raises AffinityError if one of the libraries is already imported, or this process may not use the CPUs.
    """
    loaded = [name for name in NUMERICAL_LIBRARIES if name in sys.modules]
    if loaded:
        raise AffinityError(f"too late to limit threads: {', '.join(loaded)} loaded already")
    requested = set(cpus)
    allowed = os.sched_getaffinity(0)
    # The kernel would silently drop CPUs that are not allowed.
    if not requested or not requested <= allowed:
        raise AffinityError(f"cannot run on CPUs {_listed(requested)}: allowed here are {_listed(allowed)}")
    os.sched_setaffinity(0, requested)
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    os.environ.update(WAITING)


def _listed(cpus: set[int]) -> str:
    return ",".join(map(str, sorted(cpus)))


def limit_torch(threads: int) -> None:
    """Limit torch to `threads` threads within an operator and one between operators.

    For engines on torch, right after they import it: torch refuses the second limit once it has run anything.
    """
    import torch  # noqa: PLC0415 - only workers whose engine needs torch have it

    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
