"""The folder in which compiled kernels are cached: compiled once per host and version, for all its workers."""

from __future__ import annotations

import hashlib
from pathlib import Path

from worker.engines.chatterbox.kernels.simd.targets import TARGET

_SOURCES = Path(__file__).parents[1]

_enabled: list[Path] = []


def enable(cache: Path) -> None:
    """Cache the kernels of modules that are loaded from now on in a folder below `cache`.

    The folder's name is a digest of all sources that kernels are made of, and of the instruction set that they are made
    for: Numba itself notices changes only in the file that defines a function, and in the processor's name and features
    as LLVM tells them. Numba writes each file under a temporary name and renames it, so that workers may start at
    the same time.
    """
    _enabled[:] = [cache / "kernels" / kernels_digest()[:16]]


def kernels_digest() -> str:
    """SHA-256, in hex, of the sources of the Chatterbox engines and of their kernels, and of the kernels' target."""
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(_SOURCES.rglob("*.py"))))
    digest.update(str(TARGET).encode())
    return digest.hexdigest()


def folder() -> Path | None:
    """The folder of cached kernels; None where caching is not enabled."""
    return _enabled[0] if _enabled else None
