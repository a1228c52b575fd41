"""The registry of voices: reads the voice.toml of each voice's folder, checks it, and resolves names and aliases.

The balancer uses it to check the voice of a request, the workers to find the reference clip. The name in a request is
only looked up in a dictionary, never joined to a path.
"""

from __future__ import annotations

import logging
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from voices.names import folder_name, free_name, name_key, voice_name
from voices.regular_files import MAX_CLIP_BYTES, MAX_DESCRIPTION_BYTES, check_regular_file, read_regular_file

Name = Annotated[str, BeforeValidator(lambda name: voice_name(name) if isinstance(name, str) else name)]

ANY_ENGINE = "*"

POLL_INTERVAL_SECONDS = 1.0
"""Minimum time between two scans of the folder by a LiveRegistry, after which a change takes effect."""
UNKNOWN_NAME_POLL_SECONDS = 0.05
"""The same when an unknown name is requested, which may be that of a new voice."""

MAX_FILES = 1000
"""Files in a voice's folder whose changes are noticed: a voice has two."""

log = logging.getLogger(__name__)


class VoiceError(ValueError):
    """A voice or the folder of voices cannot be used; the message names the file and the remedy."""


class VoicesUnavailableError(VoiceError):
    """The folder of voices cannot be read or written, whatever the voice."""


class UnknownVoiceError(LookupError):
    """No voice has that name or alias; the message lists the existing ones."""

    def __init__(self, name: str, known: tuple[str, ...], problem: str | None) -> None:
        if problem is not None:
            super().__init__(f"voice {name!r} cannot be used: {problem}")
        else:
            super().__init__(f"there is no voice {name!r}; there are: {', '.join(known) or 'none at all'}")


class Consent(BaseModel):
    """The speaker's permission to clone their voice."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    given_by: Annotated[str, Field(min_length=1, description="the speaker, or who may decide for them")]
    given_on: date
    note: str = ""


class Voice(BaseModel):
    """One voice, as its voice.toml describes it.

    It is either an engine's built-in voice (`engine`: the engine's name, or `*` for any engine) or cloned from a
    reference clip in its folder (`reference`: a file name).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    description: str = ""
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")] = "en"
    engine: str | None = None
    reference: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None = None
    synthetic: bool = False
    consent: Consent | None = None
    aliases: tuple[Name, ...] = ()
    parameters: dict[str, float | int | str | bool] = {}
    """Defaults of engine parameters, which a request may override."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.engine is None) == (self.reference is None):
            raise ValueError("give exactly one of `engine` (a built-in voice) and `reference` (a clip to clone)")
        return self

    @model_validator(mode="after")
    def _consent_on_record(self) -> Self:
        if self.reference is not None and not self.synthetic and self.consent is None:
            raise ValueError(
                "the voice of a person needs the speaker's consent on record: add "
                '[consent] with given_by = "…" and given_on = 2026-01-31 (or synthetic = true for a made-up voice)'
            )
        return self

    @property
    def folder_name(self) -> str:
        """Name of the voice's folder in the folder of voices."""
        return folder_name(self.name)

    def fits(self, engine: str, *, clones_voices: bool) -> bool:
        """Whether the engine of that name can speak with this voice."""
        if self.reference is not None:
            return clones_voices
        return self.engine in (ANY_ENGINE, engine)


@dataclass(frozen=True)
class Registry:
    """The voices of one folder, as `load` read them."""

    voices: dict[str, Voice]
    folder: Path
    problems: dict[str, str] = field(default_factory=dict)
    """Errors by name of the voice's folder. Such a voice is left out; the others remain usable."""

    @cached_property
    def _by_key(self) -> dict[str, Voice]:
        """The voices by what is compared of their names and aliases."""
        return {name_key(name): voice for voice in self for name in (*voice.aliases, voice.name)}

    @classmethod
    def load(cls, folder: Path) -> Registry:
        """Reads every voice in `folder`. Raises VoiceError only if the folder itself cannot be read."""
        folders = sorted(_folders(folder))
        read: dict[str, Voice] = {}
        registry = cls(voices={}, folder=folder)
        for own in folders:
            try:
                read[own.name] = _read(own / "voice.toml")
            except VoiceError as error:
                registry.problems[own.name] = str(error)
        # A folder's name is reserved for its own voice, even while that is broken: no other voice may take it.
        owners = {own.name: read[own.name].name if own.name in read else own.name for own in folders}
        for name, voice in read.items():
            aliases = {folder_name(alias): alias for alias in voice.aliases}
            if taken := [alias for key, alias in aliases.items() if owners.get(key, voice.name) != voice.name]:
                registry.problems[name] = (
                    f"{folder / name / 'voice.toml'}: {taken[0]!r} is already the name or alias of voice "
                    f"{owners[folder_name(taken[0])]!r}; {free_name(taken[0], owners)!r} is free"
                )
                continue
            owners |= dict.fromkeys(aliases, voice.name)
            registry.voices[voice.name] = voice
        return registry

    def __iter__(self) -> Iterator[Voice]:
        """Yields the voices, sorted by name."""
        return iter([self.voices[name] for name in self.names])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the voices without aliases, sorted."""
        return tuple(sorted(self.voices))

    def resolve(self, name: str) -> Voice:
        """Returns the voice with that name or alias. Raises UnknownVoiceError."""
        if (voice := self.voices.get(name) or self._by_key.get(name_key(name))) is not None:
            return voice
        raise UnknownVoiceError(name, self.names, self.public_problem(folder_name(name)))

    def public_problem(self, own: str) -> str | None:
        """What is wrong with the voice of that folder, for clients: where the folder lies is not for them."""
        problem = self.problems.get(own)
        return None if problem is None else problem.replace(f"{self.folder}/", "")

    def reference(self, voice: Voice) -> Path:
        """Returns the path of the voice's reference clip. Raises VoiceError if the voice is built in."""
        if voice.reference is None:
            raise VoiceError(f"voice {voice.name!r} has no reference clip")
        return self.folder / voice.folder_name / voice.reference


class LiveRegistry:
    """The voices of a folder, kept up to date: a voice that is added, changed or removed needs no restart.

    It has the interface of Registry and answers from memory. It scans the folder when the last scan is
    POLL_INTERVAL_SECONDS old, or UNKNOWN_NAME_POLL_SECONDS if an unknown name is requested, and reads the voices again
    only if a file has changed. While the folder cannot be read, the last known voices remain in use. Thread-safe.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Reads the folder. Raises VoiceError if it cannot be read."""
        self._folder = folder
        self._clock = clock
        self._lock = Lock()
        self._error: str | None = None
        self._registry = Registry({}, folder)
        self._reload(_snapshot(folder))
        self._refreshed_at = clock()

    @property
    def current(self) -> Registry:
        """The current voices; scans the folder first if that is due."""
        self._refresh(POLL_INTERVAL_SECONDS)
        return self._registry

    def __iter__(self) -> Iterator[Voice]:
        """Yields the voices, sorted by name."""
        return iter(self.current)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the voices without aliases, sorted."""
        return self.current.names

    def resolve(self, name: str) -> Voice:
        """Returns the voice with that name or alias. Raises UnknownVoiceError."""
        with suppress(UnknownVoiceError):
            return self.current.resolve(name)
        self._refresh(UNKNOWN_NAME_POLL_SECONDS)
        return self._registry.resolve(name)

    def reference(self, voice: Voice) -> Path:
        """Returns the path of the voice's reference clip. Raises VoiceError if the voice is built in."""
        return self._registry.reference(voice)

    def fingerprint(self, voice: Voice) -> tuple[int, ...]:
        """Returns numbers that differ whenever the reference clip has changed, read from its file's status now.

        Raises VoiceError if the voice is built in, or its clip cannot be read.
        """
        clip = self.reference(voice)
        try:
            status = check_regular_file(clip, MAX_CLIP_BYTES)
        except OSError as error:
            raise VoiceError(
                f"cannot read the reference clip {voice.folder_name}/{clip.name}: {error.strerror}"
            ) from error
        return status.st_mtime_ns, status.st_size, status.st_ino

    async def rescan(self) -> None:
        """Scans the folder now, since a voice is missing that may be new: `resolve` has done so here."""

    def rescan_blocking(self) -> None:
        """The same for a thread that may wait."""

    async def current_fingerprint(self, voice: Voice) -> tuple[int, ...]:
        """Returns `fingerprint(voice)`. Raises VoiceError."""
        return self.fingerprint(voice)

    def _refresh(self, max_age: float) -> None:
        if self._clock() - self._refreshed_at < max_age:
            return
        with self._lock:
            if self._clock() - self._refreshed_at < max_age:
                return  # another thread has just refreshed it
            error_text = None
            try:
                # Taken before the files are read, so that the next scan finds what changes in between.
                snapshot = _snapshot(self._folder)
                if snapshot != self._snapshot:
                    self._reload(snapshot)
                    log.info(
                        "the voices have changed; now there are: %s", ", ".join(self._registry.names) or "none at all"
                    )
            except VoiceError as error:
                error_text = str(error)
                if error_text != self._error:
                    log.error("the last known voices remain in use: %s", error_text)
            self._error = error_text
            self._refreshed_at = self._clock()

    def _reload(self, snapshot: _Snapshot) -> None:
        registry = Registry.load(self._folder)
        for name, problem in registry.problems.items():
            if self._registry.problems.get(name) != problem:
                log.error("voice %s is left out: %s", name, problem)
        self._registry, self._snapshot = registry, snapshot


_Snapshot = dict[Path, tuple[int, ...] | None]


def _snapshot(folder: Path) -> _Snapshot:
    """Returns the state of all voices' folders and files, which differs after any change. Raises VoiceError."""
    snapshot = {}
    for own in _folders(folder):
        snapshot[own] = _file_state(own)
        with suppress(OSError):  # unreadable or deleted meanwhile: a state like any other
            snapshot |= {file: _file_state(file) for file in islice(own.iterdir(), MAX_FILES)}
    return snapshot


def _file_state(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    # The status change time covers the permissions.
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _folders(folder: Path) -> list[Path]:
    """Returns the voices' folders. Raises VoicesUnavailableError."""
    try:
        # Caches and hidden folders begin with these characters, a voice's name does not.
        return [entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] not in "._"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise VoicesUnavailableError(
            f"there is no folder of voices at {folder}; set CHORUS_VOICES_DIR to one"
        ) from error
    except OSError as error:
        raise VoicesUnavailableError(f"cannot read the folder of voices {folder}: {error.strerror}") from error


def describe_errors(error: ValidationError) -> str:
    """Returns the errors in a voice's description, field by field."""
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'voice.toml'}: {fault['msg'].removeprefix('Value error, ')}"
        for fault in error.errors()
    )


def _read(file: Path) -> Voice:
    try:
        description = read_regular_file(file, MAX_DESCRIPTION_BYTES).decode()
        voice = Voice.model_validate(tomllib.loads(description))
    except ValidationError as error:
        raise VoiceError(f"{file}: {describe_errors(error)}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise VoiceError(f"{file}: {error}") from error
    if voice.folder_name != file.parent.name:
        raise VoiceError(
            f"{file}: name is {voice.name!r}, and the folder is {file.parent.name!r}; rename the folder to "
            f"{voice.folder_name!r}, or give the voice its name"
        )
    if voice.reference is not None:
        _check_clip(file, voice.reference)
    return voice


def _check_clip(file: Path, name: str) -> None:
    try:
        check_regular_file(file.parent / name, MAX_CLIP_BYTES)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise VoiceError(f"{file}: the reference clip {name!r} is missing from {file.parent}") from error
    except OSError as error:
        raise VoiceError(f"{file}: the reference clip {name!r} cannot be used: {error.strerror}") from error
