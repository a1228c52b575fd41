"""Keys of audio: digests over everything that changes the sound.

Two steps, so that one synthesis serves every format: a *sound* is what a worker speaks (engine and the way it is run,
weights, voice, text, parameters, seed); a *file* is a sound at one speed in one format.
"""

from __future__ import annotations

import hashlib
import json
import logging
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from balancer.audio.encoder import AudioFormat
from balancer.requests.bodies import SpeechRequest
from voices.registry import Voice
from worker.cards import EngineCard
from worker.checkpoints.catalogue import CHECKPOINTS, CheckpointError, find

log = logging.getLogger(__name__)

SPEAKERS = ("chorus-tts", "hibari-tts", "chatterbox-tts")
"""Packages whose next version may sound another way."""


class Sounds:
    """The keys for one engine whose weights have that `fingerprint`; `voices` is the folder of the voices' clips.

    `engine` is its name with the way it is run, as `cards.described` has it: each sounds a little different.
    """

    def __init__(self, engine: str, fingerprint: str, voices: Path) -> None:
        self._engine = engine
        self._fingerprint = fingerprint
        self._voices = voices
        self._clips: dict[Path, tuple[tuple[int, int], str]] = {}

    def sound(self, request: SpeechRequest) -> str:
        """What a worker is to speak. A request without a seed is content with any, so it has a key of its own."""
        return _digest(
            [
                self._engine,
                self._fingerprint,
                request.voice.name,
                self._clip(request.voice),
                request.text,
                request.parameters,
                request.seed if request.seeded else None,
            ]
        )

    @staticmethod
    def file(sound: str, speed: float, audio_format: AudioFormat) -> str:
        """A finished file."""
        return _digest([sound, speed, audio_format.value])

    def _clip(self, voice: Voice) -> str | None:
        """The digest of the voice's clip, read again when the file has changed."""
        if voice.reference is None:
            return None
        path = self._voices / voice.name / voice.reference
        try:
            status = path.stat()
            seen = (status.st_mtime_ns, status.st_size)
            known = self._clips.get(path)
            if known is None or known[0] != seen:
                self._clips[path] = known = seen, hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:
            return "unreadable"  # the worker will say so; nothing spoken gets this key
        return known[1]


def fingerprint(
    card: EngineCard, *, model_dir: Path | None = None, revision: str | None = None, notes: Path | None = None
) -> str:
    """A name for the engine's weights and code, the same on every host that has the same.

    Files of the hub's cache are named by their content; any other is read to its end, once: `notes` is a file that
    remembers. Blocking. Without weights, which the workers complain of, it is that of the code.
    """
    parts = [f"{name} {_version(name)}" for name in SPEAKERS]
    checkpoint = CHECKPOINTS.get(card.name)
    if checkpoint is not None:
        try:
            folder = find(checkpoint, model_dir=model_dir, revision=revision)
        except CheckpointError as error:
            log.debug("no fingerprint of the weights: %s", error)
            return _digest(parts)
        remembered = _Notes(notes)
        for name in (*checkpoint.files, *checkpoint.optional):
            if (folder / name).exists():
                parts.append(f"{name} {_content(folder / name, remembered)}")
        remembered.save()
    return _digest(parts)


def _content(path: Path, notes: _Notes) -> str:
    file = path.resolve()
    if path.is_symlink() and file.parent.name == "blobs":  # the hub's cache
        return file.name
    status = file.stat()
    state = f"{file} {status.st_size} {status.st_mtime_ns}"
    if (known := notes.digests.get(state)) is None:
        with file.open("rb") as content:
            known = notes.digests[state] = hashlib.file_digest(content, "sha256").hexdigest()
    return known


class _Notes:
    """Digests of large files by path, size and age."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self.digests: dict[str, str] = {}
        if file is not None and file.exists():
            try:
                self.digests = dict(json.loads(file.read_bytes()))
            except (OSError, ValueError) as error:
                log.warning("%s is damaged and written anew: %s", file, error)

    def save(self) -> None:
        if self._file is None or not self.digests:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            aside = self._file.with_suffix(".new")
            aside.write_text(json.dumps(self.digests))
            aside.replace(self._file)
        except OSError as error:
            log.warning("%s cannot be written, so the weights are read again next time: %s", self._file, error)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
