"""Where the machine code of our own kernels is kept: compiled once per host and version, for all its workers."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

CACHE_VARIABLE = "NUMBA_CACHE_DIR"
"""Read by Numba when it loads."""

_SOURCES = Path(__file__).parent / "engines" / "chatterbox"


def keep(cache: Path) -> None:
    """Have compiled kernels kept below `cache`. To be called before Numba loads.

    The folder is named by all sources that kernels are made of: Numba itself looks at each function's own file alone.
    It writes each file aside and renames it, so workers may start together.
    """
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(_SOURCES.rglob("*.py"))))
    os.environ[CACHE_VARIABLE] = str(cache / "kernels" / digest.hexdigest()[:16])
