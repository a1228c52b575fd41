"""The registry of voices: reads `<folder>/<name>/voice.toml`, checks it, and resolves names and aliases.

Used by the balancer (which voices a request may name) and by the workers (where the reference clip lies).
A request's voice is only ever looked up in a dictionary, never joined to a path.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]

ANY_ENGINE = "*"


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
        try:
            # No voice's name begins like those of caches and hidden folders.
            folders = [entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] not in "._"]
        except (FileNotFoundError, NotADirectoryError) as error:
            raise VoiceError(f"there is no folder of voices at {folder}; set CHORUS_VOICES_DIR to one") from error
        except OSError as error:
            raise VoiceError(f"cannot read the folder of voices {folder}: {error.strerror}") from error
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


def _read(file: Path) -> Voice:
    try:
        voice = Voice.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'voice.toml'}: {fault['msg']}" for fault in error.errors()
        )
        raise VoiceError(f"{file}: {faults}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise VoiceError(f"{file}: {error}") from error
    if voice.name != file.parent.name:
        raise VoiceError(f"{file}: name is {voice.name!r} but the folder is {file.parent.name!r}; make them equal")
    if voice.reference is not None and not (file.parent / voice.reference).is_file():
        raise VoiceError(f"{file}: the reference clip {voice.reference!r} is missing from {file.parent}")
    return voice
