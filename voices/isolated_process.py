"""Work on a hostile file in a process of its own, which can neither crash nor hold up whoever has it done."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence

NICENESS = 10
"""Speech goes first."""


def run(
    module: str, arguments: Sequence[str], *, seconds: float, variables: Mapping[str, str]
) -> subprocess.CompletedProcess[bytes]:
    """Run `python -m MODULE ARGUMENTS…` and return how it ended; `variables` are added to its environment.

    Blocks. Raises TimeoutExpired after `seconds`, when the process is killed, and OSError if none can be started.
    """
    # Not the server's settings, some of which are secret.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CHORUS_")}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=seconds,
        check=False,
        env={**environment, **variables},
    )


def confine(*, seconds: float, memory_bytes: int) -> None:
    """Bound the CPU time and the address space of this process, and let speech go first; called in the process."""
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))  # should the server die meanwhile
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
