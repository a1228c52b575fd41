"""`chorus voices`: what a running server can speak, and the voices of the folder: adding, removing, showing one.

The subcommands work on the folder of voices, and need no server; one that runs sees the change by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from balancer.cli.console import LOCAL, ApiKey, Url, ask, fail, tell
from balancer.settings import Settings, SettingsError
from voices import clips, voice_editor
from voices.clips import Clip, ClipError
from voices.conditionals_cache import clip_digest, delete_cached
from voices.registry import POLL_INTERVAL_SECONDS, Consent, Registry, UnknownVoiceError, Voice, VoiceError
from worker.cards import CARDS

app = typer.Typer(help="The voices: those of a running server; adding, removing and showing one.")

VoicesDir = Annotated[
    Path | None, typer.Option(envvar="CHORUS_VOICES_DIR", help="Folder of voices; left out: the repository's.")
]


@app.callback(invoke_without_command=True)
def voices(context: typer.Context, url: Url = LOCAL, api_key: ApiKey = "") -> None:
    """List the voices that a running server can speak; or add, remove or show one of the folder of voices."""
    if context.invoked_subcommand is not None:
        return
    listing = Table("voice", "language", "aliases", "description")
    for voice in ask("GET", url, "/v1/audio/voices", api_key).json()["data"]:
        aliases, description = ", ".join(voice["aliases"]), escape(voice["description"])
        listing.add_row(voice["name"], voice["language"], aliases, description)
    Console().print(listing)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits, - and _.")],
    clip: Annotated[Path, typer.Argument(help=f"Recording of 10 to 15 s of speech: {clips.KINDS}.")],
    *,
    consent: Annotated[
        str, typer.Option(help="Who agreed that this voice is cloned, and how: goes on record with the voice.")
    ] = "",
    consent_date: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="When they agreed; left out: today.")
    ] = None,
    synthetic: Annotated[bool, typer.Option("--synthetic", help="The voice is made up: no person's.")] = False,
    description: Annotated[str, typer.Option(help="What it sounds like.")] = "",
    language: Annotated[str, typer.Option(help="What it speaks, such as en or pt-BR.")] = "en",
    alias: Annotated[list[str] | None, typer.Option(help="Another name for it; may be given more than once.")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of the voice of that name, if there is one.")
    ] = False,
    voices_dir: VoicesDir = None,
) -> None:
    """Make a voice of a recording, for the engines that clone."""
    given_by = consent.strip()
    if not given_by and not synthetic:
        fail(
            "a person's voice is cloned with their consent only: say who gave it, and how, with --consent "
            '"Ada Lovelace, by e-mail" (or --synthetic, if the voice is no person\'s)'
        )
    if consent_date is not None and not given_by:
        raise typer.BadParameter("--consent-date needs --consent, which says who gave it")
    given_on = consent_date.date() if consent_date is not None else date.today()
    with _refusing():
        settings = Settings.load(voices_dir=voices_dir)
        folder = settings.storage.voices_dir
        before = _clip_digests(folder / name) if replace else ()
        voice = voice_editor.add(
            folder,
            name,
            clip,
            consent=Consent(given_by=given_by, given_on=given_on) if given_by else None,
            synthetic=synthetic,
            description=description,
            language=language,
            aliases=tuple(alias or ()),
            replace=replace,
        )
        measured = clips.inspect(folder / voice.name / str(voice.reference))
        _delete_conditionals(settings.storage.cache_dir, before)
    tell(f"voice {voice.name}: {_sound(measured)}")
    for note in clips.notes(measured):
        tell(f"note: {note}")
    tell(f"a running server offers it within {POLL_INTERVAL_SECONDS:g} s; supported by: {_supporting_engines(voice)}")


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="The voice's name.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    voices_dir: VoicesDir = None,
) -> None:
    """Delete a voice: its recording, what engines computed of it, and the record of consent."""
    with _refusing():
        settings = Settings.load(voices_dir=voices_dir)
        folder = settings.storage.voices_dir
        voice_editor.check_removable(folder, name)
        if not yes:
            if not sys.stdin.isatty():
                fail(f"voice {name!r} would be deleted for good, and there is nobody to ask here: add --yes")
            typer.confirm(f"Delete voice {name!r} and its recording in {folder / name} for good?", abort=True, err=True)
        before = _clip_digests(folder / name)
        voice_editor.remove(folder, name)
        _delete_conditionals(settings.storage.cache_dir, before)
    tell(f"voice {name} is deleted")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="The voice's name or alias.")],
    voices_dir: VoicesDir = None,
) -> None:
    """Show all about one voice: its description, its recording, the consent, which engines speak it.

    Ends with exit code 1 where something is wrong with its recording.
    """
    with _refusing():
        registry = Registry.load(_folder(voices_dir))
        voice = registry.resolve(name)
    rows = _described(voice) | {"folder": str(registry.folder / voice.name), "supported by": _supporting_engines(voice)}
    wrong: tuple[str, ...] = ()
    if voice.reference is not None:
        try:
            measured = clips.inspect(registry.reference(voice))
            rows |= {"sound": _sound(measured), "note": "; ".join(clips.notes(measured))}
            wrong = clips.faults(measured)
        except ClipError as error:
            wrong = (str(error),)
    listing = Table.grid("", "", padding=(0, 2))
    for field, value in rows.items():
        if value:
            listing.add_row(field, escape(value))
    Console().print(listing)
    if wrong:
        fail("\n  - ".join([f"the recording of voice {voice.name!r}:", *wrong]))


def _clip_digests(folder: Path) -> tuple[str, ...]:
    """The names of what the files of a voice hold."""
    try:
        return tuple(clip_digest(file) for file in folder.iterdir() if file.is_file())
    except FileNotFoundError:
        return ()


def _delete_conditionals(cache: Path, contents: Iterable[str]) -> None:
    """Delete what engines have computed of a recording, which is enough to speak with its voice."""
    for content in contents:
        delete_cached(cache, content)


def _described(voice: Voice) -> dict[str, str]:
    rows = {
        "voice": voice.name,
        "description": voice.description,
        "language": voice.language,
        "aliases": ", ".join(voice.aliases),
        "engine": voice.engine or "",
        "recording": voice.reference or "",
        "parameters": ", ".join(f"{name} = {value}" for name, value in voice.parameters.items()),
        "synthetic": "yes" if voice.synthetic else "no",
    }
    if voice.consent is not None:
        rows["consent"] = f"{voice.consent.given_by}, on {voice.consent.given_on}"
        rows["consent's note"] = voice.consent.note
    return rows


def _sound(clip: Clip) -> str:
    return (
        f"{clip.seconds:.1f} s, {clip.speech_seconds:.1f} s of it speech, at {clip.sample_rate} Hz, "
        f"{clip.level:.0f} dBFS, peak {clip.peak:.2f}, {clip.clipped:.2%} clipped"
    )


def _supporting_engines(voice: Voice) -> str:
    speakers = [card.name for card in CARDS.values() if voice.fits(card.name, clones_voices=card.clones_voices)]
    return ", ".join(speakers) or "no engine of this version"


def _folder(given: Path | None) -> Path:
    return Settings.load(voices_dir=given).storage.voices_dir


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn what is wrong with a voice or its recording into a message and exit code 1."""
    try:
        yield
    except (SettingsError, VoiceError, ClipError, UnknownVoiceError, OSError) as error:
        fail(str(error))
