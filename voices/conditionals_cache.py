"""Where what engines computed of a reference clip is kept: below the cache folder, named by the clip's content.

The workers keep it there; whoever deletes a voice deletes it too, since it is enough to speak with that voice.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

FOLDER = "conditionals"
SUFFIX = ".safetensors"


def content_of(clip: Path) -> str:
    """Name of a clip's content: its SHA-256. Raises OSError."""
    with clip.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def place(cache: Path, model: str, content: str) -> Path:
    """The file for what `model`, by a name for all that it depends on, computed of that content."""
    return cache / FOLDER / model / f"{content}{SUFFIX}"


def forget(cache: Path, content: str) -> None:
    """Delete what any model computed of that content. Raises OSError."""
    for file in (cache / FOLDER).glob(f"*/{content}{SUFFIX}"):
        file.unlink(missing_ok=True)
