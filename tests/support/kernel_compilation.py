"""Has each kernel compiled once in a test run, though several of its processes need it at the same time."""

from __future__ import annotations

import fcntl
import sys
from typing import Any

from tests.support import shared_folder


def share() -> None:
    """Have this process wait for a kernel that another process of the run compiles, then take it from the cache."""
    if "numba" not in sys.modules:  # no test of this run has a kernel
        return
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.dispatcher import Dispatcher

    compile_once = Dispatcher.compile
    held: set[str] = set()

    def compile_alone(dispatcher: Any, signature: Any) -> Any:
        name = f"{dispatcher.py_func.__module__}.{dispatcher.py_func.__qualname__}"
        # Numba's own lock comes first, as it is held while a kernel's callees are compiled. Kernels do not call each
        # other in a circle, so that no two processes wait for each other.
        with global_compiler_lock:
            if not name.startswith("worker.") or name in held:
                return compile_once(dispatcher, signature)
            held.add(name)
            try:
                with (shared_folder.kernels_folder() / f"{name}.lock").open("w") as file:
                    fcntl.flock(file, fcntl.LOCK_EX)
                    return compile_once(dispatcher, signature)
            finally:
                held.remove(name)

    Dispatcher.compile = compile_alone  # type: ignore[method-assign, assignment]
