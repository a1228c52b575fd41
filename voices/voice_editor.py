"""Adds and removes cloned voices. A voice appears in the folder of voices completely or not at all.

Called by the command line and by servers for their operators. Running servers notice the change by themselves.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import tomli_w
from pydantic import ValidationError

from voices import clips
from voices.clips import Clip, ClipError
from voices.conditionals_cache import clip_digests, delete_cached
from voices.names import folder_name, free_name
from voices.registry import (
    Consent,
    Registry,
    UnknownVoiceError,
    Voice,
    VoiceError,
    VoicesUnavailableError,
    describe_errors,
)
from voices.regular_files import MAX_CLIP_BYTES, read_regular_file

REQUIRED_VOICE = "default"
"""The voice of requests that name no voice: a server does not start without it."""


class VoiceExistsError(VoiceError):
    """Another voice has the name, or one of the aliases."""


def add(
    folder: Path,
    name: str,
    clip: Path,
    *,
    consent: Consent | None = None,
    synthetic: bool = False,
    description: str = "",
    language: str = "en",
    aliases: tuple[str, ...] = (),
    replace: bool = False,
    cache: Path | None = None,
    measured: Clip | None = None,
) -> Voice:
    """Adds a voice that is cloned from `clip`, of which it makes a copy, and returns it.

    With `replace`, an existing voice of that name is replaced, and what `cache` has of its conditionals is deleted.
    `measured` is what `clips.inspect` finds of the clip, if that is known already.

    Raises ClipError, which lists all defects of the clip, VoiceExistsError, or VoiceError for any other reason; the
    folder is then unchanged, unless the message says that all but an old file is done.
    """
    registry = Registry.load(folder)
    description_fields = {
        "name": name,
        "description": description,
        "language": language,
        "reference": "reference.wav",
        "synthetic": synthetic,
        "consent": consent,
        "aliases": aliases,
    }
    try:
        voice = Voice.model_validate(description_fields)
    except ValidationError as error:
        raise VoiceError(f"voice {name!r} cannot be added: {describe_errors(error)}") from error
    _check_names(voice, registry, replace=replace)
    measured = measured or clips.inspect(clip)
    if faults := clips.faults(measured):
        raise ClipError("\n  - ".join([f"{clip} cannot be a reference clip:", *faults]))
    voice = voice.model_copy(update={"reference": f"reference{measured.suffix}"})
    own = folder / voice.folder_name
    old_clips = clip_digests(own) if replace else ()
    _put(own, voice, clip, replace=replace)
    _delete_conditionals(cache, old_clips)
    return voice


def remove(folder: Path, name: str, *, cache: Path | None = None) -> None:
    """Deletes a voice and its clip, and what `cache` has of its conditionals.

    Raises the errors of `removable_folder`, and VoicesUnavailableError if deleting fails.
    """
    own = removable_folder(folder, name)
    old_clips = clip_digests(own)
    try:
        with _replaced(own):
            pass
    except OSError as error:
        raise VoicesUnavailableError(f"cannot remove voice {name!r} from {folder}: {error.strerror}") from error
    _delete_conditionals(cache, old_clips)


def removable_folder(folder: Path, name: str) -> Path:
    """Returns the folder of the voice, usable or broken, of that name; a broken one may have that of its folder.

    Raises UnknownVoiceError if there is none, VoiceError if the server needs it.
    """
    names = _names_by_folder(Registry.load(folder))
    own = name if name in names else folder_name(name)
    if own not in names:
        raise UnknownVoiceError(name, tuple(sorted(names.values())), None)
    if own == REQUIRED_VOICE:
        raise VoiceError(f"voice {REQUIRED_VOICE!r} cannot be removed: it is the voice of requests that name none")
    return folder / own


def _names_by_folder(registry: Registry) -> dict[str, str]:
    """Names of all voices by their folders' names; a broken voice has its folder's name."""
    return {own: own for own in registry.problems} | {voice.folder_name: voice.name for voice in registry}


def _check_names(voice: Voice, registry: Registry, *, replace: bool) -> None:
    """Raises VoiceExistsError if another voice has the name or an alias: the registry would leave out one of them."""
    folders = _names_by_folder(registry)
    aliases = {folder_name(alias): other.folder_name for other in registry for alias in other.aliases}
    owners = aliases | {own: own for own in folders}
    own = voice.folder_name
    if own in folders and not replace:
        raise VoiceExistsError(
            f"there is a voice {folders[own]!r} already; replace it (`replace`), or use another name, such as "
            f"{free_name(voice.name, owners)!r}"
        )
    for name in (voice.name, *voice.aliases):
        if (owner := owners.get(folder_name(name), own)) != own:
            raise VoiceExistsError(
                f"{name!r} is a name or alias of voice {folders[owner]!r} already; choose another, such as "
                f"{free_name(name, owners)!r}, or change that voice"
            )


def _put(own: Path, voice: Voice, clip: Path, *, replace: bool) -> None:
    """Writes the folder `own` of a voice, which is there with all of its files or not at all."""
    folder = own.parent
    try:
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder, ignore_cleanup_errors=True) as scratch:
            new_folder = Path(scratch) / own.name
            _write(new_folder, voice, clip)
            # rename fails if another process has added a voice of that name meanwhile.
            with _replaced(own) if replace else nullcontext():
                new_folder.rename(own)
    except UnicodeEncodeError as error:
        raise VoiceError(f"voice {voice.name!r} cannot be added: its description must be UTF-8") from error
    except OSError as error:
        raise VoicesUnavailableError(f"cannot write voice {voice.name!r} in {folder}: {error.strerror}") from error


def _write(own: Path, voice: Voice, clip: Path) -> None:
    """Writes the folder `own` of a voice, and reads it back as the registry does."""
    own.mkdir()
    (own / str(voice.reference)).write_bytes(read_regular_file(clip, MAX_CLIP_BYTES))
    description_fields = {"name": voice.name, "language": voice.language} | voice.model_dump(exclude_defaults=True)
    (own / "voice.toml").write_text(tomli_w.dumps(description_fields), encoding="utf-8")
    if (problem := Registry.load(own.parent).public_problem(own.name)) is not None:
        raise VoiceError(problem)


def _delete_conditionals(cache: Path | None, digests: tuple[str, ...]) -> None:
    """Deletes the conditionals of clips, which suffice to speak with their voice."""
    if cache is None:
        return
    try:
        delete_cached(cache, digests)
    except OSError as error:
        raise VoicesUnavailableError(
            f"done, but {error.filename} could not be deleted ({error.strerror}): delete it by hand"
        ) from error


@contextmanager
def _replaced(own: Path) -> Iterator[None]:
    """Hides the folder `own` of a voice, if it exists, from the registry; deletes it if the block succeeds.

    If the block fails, the folder is restored.
    """
    if not own.is_dir():
        yield
        return
    hidden = own.with_name(f".old-{own.name}-{secrets.token_hex(4)}")
    own.rename(hidden)
    try:
        yield
    except BaseException:
        hidden.rename(own)
        raise
    try:
        if hidden.is_symlink():
            hidden.unlink()
        else:
            shutil.rmtree(hidden)
    except OSError as error:
        raise VoicesUnavailableError(
            f"done, but {hidden} could not be deleted ({error.strerror}): delete it by hand"
        ) from error
