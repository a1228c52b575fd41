"""Makes and removes voices of reference clips: each appears in the folder of voices whole, or not at all.

Called by the command line. Servers that run find what has changed by themselves.
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
from voices.clips import ClipError
from voices.registry import Consent, Registry, Voice, VoiceError, explain

KEPT = "default"
"""The voice of requests that name none: a server does not start without it."""


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
) -> Voice:
    """Make a voice of a clip, which is copied. With `replace` it may take the place of the voice of that name.

    Raises ClipError, naming everything that is wrong with the clip, and VoiceError on anything else; the folder is
    then as it was before.
    """
    registry = Registry.load(folder)
    described = {
        "name": name,
        "description": description,
        "language": language,
        "reference": "reference.wav",
        "synthetic": synthetic,
        "consent": consent,
        "aliases": aliases,
    }
    try:
        voice = Voice.model_validate(described)
    except ValidationError as error:
        raise VoiceError(f"voice {name!r} cannot be made: {explain(error)}") from error
    _check_names(voice, registry, replace=replace)
    measured = clips.inspect(clip)
    if faults := clips.faults(measured):
        raise ClipError("\n  - ".join([f"{clip} cannot be a reference clip:", *faults]))
    voice = voice.model_copy(update={"reference": f"reference{measured.suffix}"})
    try:
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder, ignore_cleanup_errors=True) as scratch:
            made = Path(scratch) / name
            _make(made, voice, clip)
            # Renaming alone refuses what another has put there meanwhile.
            with _aside(folder / name) if replace else nullcontext():
                made.rename(folder / name)
    except UnicodeEncodeError as error:
        raise VoiceError(f"voice {name!r} cannot be made: what is said of it must be UTF-8") from error
    except OSError as error:
        raise VoiceError(f"cannot write voice {name!r} in {folder}: {error.strerror}") from error
    return voice


def remove(folder: Path, name: str) -> None:
    """Delete a voice, its clip included. Raises VoiceError where `check_removable` does, or it cannot be."""
    check_removable(folder, name)
    try:
        with _aside(folder / name):
            pass
    except OSError as error:
        raise VoiceError(f"cannot remove voice {name!r} from {folder}: {error.strerror}") from error


def check_removable(folder: Path, name: str) -> None:
    """Raise VoiceError where there is no voice of that name, broken ones included, or it must stay."""
    registry = Registry.load(folder)
    names = sorted({*registry.voices, *registry.problems})
    if name not in names:
        raise VoiceError(f"there is no voice {name!r}; there are: {', '.join(names) or 'none at all'}")
    if name == KEPT:
        raise VoiceError(f"voice {KEPT!r} must stay: it is the voice of requests that name none")


def _check_names(voice: Voice, registry: Registry, *, replace: bool) -> None:
    """Raise VoiceError where a name or alias is another's: the registry would leave one of the two out."""
    owners = {alias: other.name for other in registry for alias in other.aliases}
    owners |= {name: name for name in (*registry.voices, *registry.problems)}
    if owners.get(voice.name) == voice.name and not replace:
        raise VoiceError(f"there is a voice {voice.name!r} already; --replace puts this one in its place")
    for name in (voice.name, *voice.aliases):
        if (owner := owners.get(name, voice.name)) != voice.name:
            raise VoiceError(f"{name!r} is a name or alias of voice {owner!r} already; take another, or change that")


def _make(own: Path, voice: Voice, clip: Path) -> None:
    """Write the folder of a voice, and read it back as the registry does."""
    own.mkdir()
    shutil.copyfile(clip, own / str(voice.reference))
    described = {"name": voice.name, "language": voice.language} | voice.model_dump(exclude_defaults=True)
    (own / "voice.toml").write_text(tomli_w.dumps(described), encoding="utf-8")
    if problems := Registry.load(own.parent).problems:
        raise VoiceError(problems[voice.name])


@contextmanager
def _aside(own: Path) -> Iterator[None]:
    """Move a voice's folder, if there is one, out of the registry's sight; delete it once the block has gone well."""
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
        raise VoiceError(f"done, but {hidden} is left over: delete it by hand ({error.strerror})") from error
