"""Cache of voice conditionals: what a model computed from a reference clip, in files named by the clip's content.

Workers write the files. Whoever deletes a voice deletes its files here as well, since they suffice to speak with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from voices.regular_files import MAX_CLIP_BYTES, read_regular_file

FOLDER = "conditionals"
SUFFIX = ".safetensors"


def clip_digest(clip: Path) -> str:
    """Returns the SHA-256 of a clip's content in hexadecimal. Raises OSError, also for what cannot be a clip."""
    return hashlib.sha256(read_regular_file(clip, MAX_CLIP_BYTES)).hexdigest()


def clip_digests(folder: Path) -> tuple[str, ...]:
    """Returns the digests of all files in a voice's folder that may be its clip."""
    digests = []
    try:
        for file in folder.iterdir():
            with suppress(OSError):  # no clip, so nothing was computed from it
                digests.append(clip_digest(file))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return tuple(digests)


def cache_file(cache: Path, model: str, digest: str) -> Path:
    """Returns the file for the conditionals of a clip.

    `model` identifies everything else that the conditionals depend on, `digest` the clip.
    """
    return cache / FOLDER / model / f"{digest}{SUFFIX}"


def delete_cached(cache: Path, digests: Iterable[str]) -> None:
    """Deletes what any model computed from these clips. Raises OSError."""
    for digest in digests:
        for file in (cache / FOLDER).glob(f"*/{digest}{SUFFIX}"):
            file.unlink(missing_ok=True)
