"""The registry of voices: reads `<folder>/<name>/voice.toml`, checks it, and resolves names and aliases.

Used by the balancer (which voices a request may name) and by the workers (where the reference clip lies).
A request's voice is only ever looked up in a dictionary, never joined to a path.
"""

from __future__ import annotations

import logging
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from threading import Lock
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]

ANY_ENGINE = "*"

LOOK_SECONDS = 1.0
"""Least time between two looks at the folder of a LiveRegistry; what changes there counts after as long."""
UNKNOWN_SECONDS = 0.05
"""The same for a name that is unknown, which may be that of a new voice."""

log = logging.getLogger(__name__)


class VoiceError(ValueError):
    """A voice folder that cannot be used; the message names the file and the mend."""


class UnknownVoiceError(LookupError):
    """No voice has that name or alias; the message lists those there are."""

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

    It is either an engine's built-in voice (`engine`: the engine's name, or `*` for whichever runs) or cloned from
    a reference clip in its folder (`reference`: a file name).
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
    """Defaults for engine parameters, which a request may override."""

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

    def fits(self, engine: str, *, clones_voices: bool) -> bool:
        """Whether the engine of that name can speak it."""
        if self.reference is not None:
            return clones_voices
        return self.engine in (ANY_ENGINE, engine)


@dataclass(frozen=True)
class Registry:
    """The voices of one folder. Build it with `load`."""

    voices: dict[str, Voice]
    folder: Path
    problems: dict[str, str] = field(default_factory=dict)
    """Folder name to what is wrong with it; such a voice is left out, the others serve."""

    @classmethod
    def load(cls, folder: Path) -> Registry:
        """Read every voice below `folder`. Raises VoiceError only where the folder itself cannot be read."""
        folders = _folders(folder)
        registry = cls(voices={}, folder=folder)
        # A folder's name is its own voice's, even while that is broken: no other voice answers to it meanwhile.
        taken = {own.name: own.name for own in folders}
        for file in sorted(own / "voice.toml" for own in folders):
            try:
                voice = _read(file)
                for alias in voice.aliases:
                    if taken.get(alias, voice.name) != voice.name:
                        raise VoiceError(f"{file}: {alias!r} is already the name or alias of voice {taken[alias]!r}")
            except VoiceError as error:
                registry.problems[file.parent.name] = str(error)
                continue
            taken |= dict.fromkeys(voice.aliases, voice.name)
            registry.voices[voice.name] = voice
        return registry

    def __iter__(self) -> Iterator[Voice]:
        """The voices, sorted by name."""
        return iter([self.voices[name] for name in self.names])

    @property
    def names(self) -> tuple[str, ...]:
        """Canonical names, sorted."""
        return tuple(sorted(self.voices))

    def resolve(self, name: str) -> Voice:
        """The voice of that name or alias. Raises UnknownVoiceError."""
        if name in self.voices:
            return self.voices[name]
        for voice in self.voices.values():
            if name in voice.aliases:
                return voice
        raise UnknownVoiceError(name, self.names, self.problems.get(name))

    def reference(self, voice: Voice) -> Path:
        """Where the reference clip of a cloned voice lies."""
        if voice.reference is None:
            raise VoiceError(f"voice {voice.name!r} has no reference clip")
        return self.folder / voice.name / voice.reference


class LiveRegistry:
    """The voices of a folder as it is now: what is added, changed or removed there counts without a restart.

    It answers as a Registry does, from memory. The folder is looked at LOOK_SECONDS after the last look, or
    UNKNOWN_SECONDS after it for an unknown name, and read only where a file has changed. While the folder cannot be
    read the voices last known go on serving. Any thread may call it.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the folder for the first time. Raises VoiceError where it cannot be read."""
        self._folder = folder
        self._clock = clock
        self._lock = Lock()
        self._trouble: str | None = None
        self._registry = Registry({}, folder)
        self._take(_marks(folder))
        self._looked = clock()

    @property
    def current(self) -> Registry:
        """The voices at the last look, which is made now if it is due."""
        self._look(LOOK_SECONDS)
        return self._registry

    def __iter__(self) -> Iterator[Voice]:
        """The voices, sorted by name."""
        return iter(self.current)

    @property
    def names(self) -> tuple[str, ...]:
        """Canonical names, sorted."""
        return self.current.names

    def resolve(self, name: str) -> Voice:
        """The voice of that name or alias. Raises UnknownVoiceError."""
        with suppress(UnknownVoiceError):
            return self.current.resolve(name)
        self._look(UNKNOWN_SECONDS)
        return self._registry.resolve(name)

    def reference(self, voice: Voice) -> Path:
        """Where the reference clip of a cloned voice lies."""
        return self._registry.reference(voice)

    def stamp(self, voice: Voice) -> tuple[int, ...]:
        """What changes whenever the reference clip does, read from the disk just now.

        Raises VoiceError where there is no clip, or none any more.
        """
        clip = self.reference(voice)
        try:
            status = clip.stat()
        except OSError as error:
            raise VoiceError(f"cannot read the reference clip {clip}: {error.strerror}") from error
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _look(self, after: float) -> None:
        if self._clock() - self._looked < after:
            return
        with self._lock:
            if self._clock() - self._looked < after:
                return  # another thread was first
            trouble = None
            try:
                # Before the files are read: what changes meanwhile is found at the next look.
                marks = _marks(self._folder)
                if marks != self._marks:
                    self._take(marks)
                    log.info("the voices have changed; there are: %s", ", ".join(self._registry.names) or "none at all")
            except VoiceError as error:
                trouble = str(error)
                if trouble != self._trouble:
                    log.error("the voices last known go on serving: %s", trouble)
            self._trouble = trouble
            self._looked = self._clock()

    def _take(self, marks: _Marks) -> None:
        registry = Registry.load(self._folder)
        for name, problem in registry.problems.items():
            if self._registry.problems.get(name) != problem:
                log.error("voice %s is left out: %s", name, problem)
        self._registry, self._marks = registry, marks


_Marks = dict[Path, tuple[int, ...] | None]


def _marks(folder: Path) -> _Marks:
    """What changes whenever a voice does: the marks of all their folders and files. Raises VoiceError."""
    marks = {}
    for own in _folders(folder):
        marks[own] = _mark(own)
        with suppress(OSError):  # not to be read, or gone by now: a state like any other
            marks |= {file: _mark(file) for file in own.iterdir()}
    return marks


def _mark(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    # Its rights count, too: they change with the status alone.
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _folders(folder: Path) -> list[Path]:
    """The folders of the voices. Raises VoiceError."""
    try:
        # No voice's name begins like those of caches and hidden folders.
        return [entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] not in "._"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise VoiceError(f"there is no folder of voices at {folder}; set CHORUS_VOICES_DIR to one") from error
    except OSError as error:
        raise VoiceError(f"cannot read the folder of voices {folder}: {error.strerror}") from error


def explain(error: ValidationError) -> str:
    """What is wrong with the description of a voice, field by field."""
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'voice.toml'}: {fault['msg']}" for fault in error.errors())


def _read(file: Path) -> Voice:
    try:
        voice = Voice.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise VoiceError(f"{file}: {explain(error)}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise VoiceError(f"{file}: {error}") from error
    if voice.name != file.parent.name:
        raise VoiceError(f"{file}: name is {voice.name!r} but the folder is {file.parent.name!r}; make them equal")
    if voice.reference is not None and not (file.parent / voice.reference).is_file():
        raise VoiceError(f"{file}: the reference clip {voice.reference!r} is missing from {file.parent}")
    return voice
