"""Has each kernel compiled by one process of a host: the others wait meanwhile, and take it from the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numba.core.compiler_lock import global_compiler_lock

from worker.engines.chatterbox.kernels.file_lock import locked

MAX_WAIT_SECONDS = 20.0
"""A kernel is compiled in seconds. Who waits longer for a process, which may hang, compiles it, too, before its own
watchdog takes it for one that hangs."""


def compile_once(dispatcher: Any, folder: Path) -> None:
    """Have a Numba dispatcher wait for another process that compiles its function; `folder` is that of the cache."""
    name = f"{dispatcher.py_func.__module__}.{dispatcher.py_func.__qualname__}"
    compile_now = dispatcher.compile
    held = False

    def compile_alone(signature: Any) -> Any:
        nonlocal held
        # Numba's own lock comes first, as it is held while a kernel's callees are compiled. Kernels do not call each
        # other in a circle, so that no two processes wait for each other.
        with global_compiler_lock:
            if held:
                return compile_now(signature)
            held = True
            try:
                # Without the lock it is compiled, too.
                with locked(folder / f"{name}.lock", MAX_WAIT_SECONDS):
                    return compile_now(signature)
            finally:
                held = False

    dispatcher.compile = compile_alone
