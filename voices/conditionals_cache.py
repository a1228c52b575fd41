"""Cache of voice conditionals: what a model computed from a reference clip, in files named by the clip's content.

Workers write the files. Whoever deletes a voice deletes its files here as well, since they suffice to speak with it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from voices.regular_files import MAX_CLIP_BYTES, read_regular_file

FOLDER = "conditionals"
SUFFIX = ".safetensors"


def clip_digest(clip: Path) -> str:
    """Returns the SHA-256 of a clip's content in hexadecimal. Raises OSError, also for what cannot be a clip."""
    return hashlib.sha256(read_regular_file(clip, MAX_CLIP_BYTES)).hexdigest()


def cache_file(cache: Path, model: str, digest: str) -> Path:
    """Returns the file for the conditionals of a clip.

    `model` identifies everything else that the conditionals depend on, `digest` the clip.
    """
    return cache / FOLDER / model / f"{digest}{SUFFIX}"


def delete_cached(cache: Path, digest: str) -> None:
    """Deletes what any model computed from the clip. Raises OSError."""
    for file in (cache / FOLDER).glob(f"*/{digest}{SUFFIX}"):
        file.unlink(missing_ok=True)
