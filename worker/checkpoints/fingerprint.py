"""A fingerprint of the weights and libraries that make an engine's sound."""

from __future__ import annotations

import hashlib
import json
import logging
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from worker.cards import EngineCard, FlowModel
from worker.checkpoints.catalogue import CHECKPOINTS, MEANFLOW, CheckpointError, find, find_meanflow

log = logging.getLogger(__name__)

PACKAGES = ("chorus-tts", "hibari-tts", "chatterbox-tts")
"""Packages whose next version may change the sound."""


def fingerprint(
    card: EngineCard,
    *,
    flow: FlowModel = FlowModel.UPSTREAM,
    model_dir: Path | None = None,
    revision: str | None = None,
    notes: Path | None = None,
) -> str:
    """A digest of the engine's weights and code, the same on every host that has the same.

    Files in the hub's cache are named by their content; any other file is read in full, once: the file `notes` keeps
    the digests. Blocking. Without weights (which the workers report) it is the digest of the code alone.
    """
    parts = [f"{name} {_version(name)}" for name in PACKAGES]
    checkpoint = CHECKPOINTS.get(card.name)
    if checkpoint is not None:
        try:
            folder = find(checkpoint, model_dir=model_dir, revision=revision)
            files = [folder / name for name in (*checkpoint.files, *checkpoint.optional)]
            if flow is FlowModel.MEANFLOW:
                meanflow = find_meanflow(folder)
                files += [meanflow / name for name in MEANFLOW.files]
        except CheckpointError as error:
            log.debug("no fingerprint of the weights: %s", error)
            return digest_of(parts)
        remembered = _Notes(notes)
        parts += [f"{file.name} {_content(file, remembered)}" for file in files if file.exists()]
        remembered.save()
    return digest_of(parts)


def _content(path: Path, notes: _Notes) -> str:
    if path.is_symlink() and (blob := path.readlink()).parent.name == "blobs":  # the hub's cache
        return blob.name
    file = path.resolve()
    status = file.stat()
    state = f"{file} {status.st_size} {status.st_mtime_ns}"
    if (known := notes.digests.get(state)) is None:
        with file.open("rb") as content:
            known = notes.digests[state] = hashlib.file_digest(content, "sha256").hexdigest()
    return known


class _Notes:
    """Digests of large files by path, size and modification time."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self.digests: dict[str, str] = {}
        if file is not None and file.exists():
            try:
                self.digests = dict(json.loads(file.read_bytes()))
            except (OSError, ValueError) as error:
                log.warning("%s is damaged and will be rewritten: %s", file, error)

    def save(self) -> None:
        if self._file is None or not self.digests:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            aside = self._file.with_suffix(".new")
            aside.write_text(json.dumps(self.digests))
            aside.replace(self._file)
        except OSError as error:
            log.warning("%s cannot be written, so the weights are read again at the next start: %s", self._file, error)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def digest_of(parts: list[Any]) -> str:
    """SHA-256, in hex, of `parts` as JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
