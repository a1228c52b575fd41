"""`chorus voices`: lists the voices of a running server; adds, removes and shows voices in the folder of voices.

The subcommands change the folder of voices and need no server; a running server notices the change by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from balancer.cli.console import LOCAL_URL, ApiKey, Url, fail, request, tell
from balancer.settings.settings import Settings, SettingsError
from voices import clips, voice_editor
from voices.clips import Clip, ClipError
from voices.registry import POLL_INTERVAL_SECONDS, Consent, Registry, UnknownVoiceError, Voice, VoiceError
from worker.cards import CARDS

app = typer.Typer(help="List the voices of a running server; add, remove or show a voice.")

VoicesDirOption = Annotated[
    Path | None,
    typer.Option(envvar="CHORUS_VOICES_DIR", help="Directory of voices; default: the one in the repository."),
]


@app.callback(invoke_without_command=True)
def voices(context: typer.Context, url: Url = LOCAL_URL, api_key: ApiKey = "") -> None:
    """List the voices of a running server; or add, remove or show a voice in the directory of voices."""
    if context.invoked_subcommand is not None:
        return
    table = Table("voice", "language", "aliases", "description")
    for voice in request("GET", url, "/v1/audio/voices", api_key).json()["data"]:
        table.add_row(
            *map(escape, (voice["name"], voice["language"], ", ".join(voice["aliases"]), voice["description"]))
        )
    Console().print(table)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Name of the voice: any line of text.")],
    clip: Annotated[Path, typer.Argument(help=f"Recording of 10 to 15 s of speech: {clips.KINDS}.")],
    *,
    consent: Annotated[
        str, typer.Option(help="Who agreed to the cloning of this voice, and how; recorded with the voice.")
    ] = "",
    consent_date: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Date of the consent; default: today.")
    ] = None,
    synthetic: Annotated[bool, typer.Option("--synthetic", help="The voice is synthetic, not a person's.")] = False,
    description: Annotated[str, typer.Option(help="Description of its sound.")] = "",
    language: Annotated[str, typer.Option(help="Its language, such as en or pt-BR.")] = "en",
    alias: Annotated[list[str] | None, typer.Option(help="Another name for it; may be repeated.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an existing voice of that name.")] = False,
    voices_dir: VoicesDirOption = None,
) -> None:
    """Add a voice that is cloned from a recording, for the engines that can clone voices."""
    given_by = consent.strip()
    if not given_by and not synthetic:
        fail(
            "cloning a person's voice needs their consent: record who gave it, and how, with --consent "
            '"Ada Lovelace, by e-mail" (or use --synthetic if the voice is not a person\'s)'
        )
    if consent_date is not None and not given_by:
        raise typer.BadParameter("--consent-date needs --consent")
    given_on = consent_date.date() if consent_date is not None else date.today()
    with _reporting_errors():
        settings = Settings.load(voices_dir=voices_dir)
        folder = settings.storage.voices_dir
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
            cache=settings.storage.cache_dir,
        )
        measured = clips.inspect(folder / voice.folder_name / str(voice.reference))
    tell(f"voice {voice.name}: {_describe_clip(measured)}")
    for check in clips.checks(measured):
        tell(f"  {check.subject}: {check.words}{' (good)' if check.passed else ''}")
    for note in clips.notes(measured):
        tell(f"note: {note}")
    tell(f"a running server offers it within {POLL_INTERVAL_SECONDS:g} s; supported by: {_supporting_engines(voice)}")


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="Name of the voice.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    voices_dir: VoicesDirOption = None,
) -> None:
    """Delete a voice: its recording, everything computed from it, and the record of consent."""
    with _reporting_errors():
        settings = Settings.load(voices_dir=voices_dir)
        folder = settings.storage.voices_dir
        own = voice_editor.removable_folder(folder, name)
        if not yes:
            if not sys.stdin.isatty():
                fail(f"deleting voice {name!r} cannot be undone, and there is no terminal to ask on: add --yes")
            typer.confirm(f"Delete voice {name!r} and its recording in {own}?", abort=True, err=True)
        voice_editor.remove(folder, name, cache=settings.storage.cache_dir)
    tell(f"deleted voice {name}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name or alias of the voice.")],
    voices_dir: VoicesDirOption = None,
) -> None:
    """Show a voice: its description, recording, consent, and the engines that support it.

    The exit code is 1 if its recording has a defect.
    """
    with _reporting_errors():
        registry = Registry.load(_folder(voices_dir))
        voice = registry.resolve(name)
    rows = _voice_rows(voice) | {
        "folder": str(registry.folder / voice.folder_name),
        "supported by": _supporting_engines(voice),
    }
    defects: tuple[str, ...] = ()
    if voice.reference is not None:
        try:
            measured = clips.inspect(registry.reference(voice))
            rows |= {"sound": _describe_clip(measured), "note": "; ".join(clips.notes(measured))}
            defects = clips.faults(measured)
        except ClipError as error:
            defects = (str(error),)
    table = Table.grid("", "", padding=(0, 2))
    for field, value in rows.items():
        if value:
            table.add_row(field, escape(value))
    Console().print(table)
    if defects:
        fail("\n  - ".join([f"the recording of voice {voice.name!r}:", *defects]))


def _voice_rows(voice: Voice) -> dict[str, str]:
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


def _describe_clip(clip: Clip) -> str:
    return (
        f"{clip.seconds:.1f} s, {clip.speech_seconds:.1f} s of it speech, at {clip.sample_rate} Hz, "
        f"{clip.level:.0f} dBFS, peak {clip.peak:.2f}, {clip.clipped:.2%} clipped"
    )


def _supporting_engines(voice: Voice) -> str:
    engines = [card.name for card in CARDS.values() if voice.fits(card.name, clones_voices=card.clones_voices)]
    return ", ".join(engines) or "no engine of this version"


def _folder(given: Path | None) -> Path:
    return Settings.load(voices_dir=given).storage.voices_dir


@contextmanager
def _reporting_errors() -> Iterator[None]:
    """Reports an error of a voice or its recording, and ends the command with exit code 1."""
    try:
        yield
    except (SettingsError, VoiceError, ClipError, UnknownVoiceError, OSError) as error:
        fail(str(error))
