"""CPU affinity and thread limits of this process, set before any numerical library loads.

OpenMP, MKL and OpenBLAS read their limits once, when they are loaded, and size their pools by the affinity mask.
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

NUMERICAL_LIBRARIES = ("numpy", "scipy", "torch", "onnxruntime")


class CoresError(RuntimeError):
    """The process cannot be confined as asked; the message says why."""


def confine(cpus: Iterable[int], threads: int) -> None:
    """Pin the process to `cpus` (CPU numbers) and limit every numerical library to `threads` threads.

    Raises CoresError where one of the libraries is loaded already, or the CPUs are not this process's to use.
    """
    loaded = [name for name in NUMERICAL_LIBRARIES if name in sys.modules]
    if loaded:
        raise CoresError(f"too late to limit threads: {', '.join(loaded)} loaded already")
    wanted = set(cpus)
    allowed = os.sched_getaffinity(0)
    # The kernel itself would drop what it does not allow from the set, without a word.
    if not wanted or not wanted <= allowed:
        raise CoresError(f"cannot run on CPUs {_listed(wanted)}: allowed here are {_listed(allowed)}")
    os.sched_setaffinity(0, wanted)
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    # Spinning between parallel regions burns the core that the next utterance needs.
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def _listed(cpus: set[int]) -> str:
    return ",".join(map(str, sorted(cpus)))


def limit_torch(threads: int) -> None:
    """Limit torch to `threads` threads within an operator and one between operators.

    For engines on torch, right after they import it: torch refuses the second limit once it has run anything.
    """
    import torch  # noqa: PLC0415 - only workers whose engine needs torch have it

    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
