"""Where the machine code of our own kernels is kept: compiled once per host and version, for all its workers."""

from __future__ import annotations

import hashlib
from pathlib import Path

_SOURCES = Path(__file__).parents[1]

_kept: list[Path] = []


def keep(cache: Path) -> None:
    """Have the kernels that are loaded from now on kept below `cache`.

    The folder is named by all sources that kernels are made of: Numba itself looks at each function's own file alone.
    It writes each file aside and renames it, so workers may start together.
    """
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(_SOURCES.rglob("*.py"))))
    _kept[:] = [cache / "kernels" / digest.hexdigest()[:16]]


def folder() -> Path | None:
    """Where kernels are kept; None: nowhere."""
    return _kept[0] if _kept else None
