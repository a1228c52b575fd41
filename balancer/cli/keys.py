"""`chorus keys`: makes and revokes API keys in the file that a running server reads again by itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from balancer.access.api_keys import ApiKey, KeysFileError, digest_of, new_key, read_keys, write_keys
from balancer.cli.console import EXIT_REFUSED, fail, tell
from balancer.scheduling.priority import Priority
from balancer.settings import Settings, SettingsError

app = typer.Typer(help="API keys: list, add, revoke. A running server follows at once.", no_args_is_help=True)

Most = Annotated[int | None, typer.Option(min=1)]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Whose it is: letters, digits, dots, dashes and underscores.")],
    priority: Annotated[Priority, typer.Option(help="The highest that its requests get.")] = Priority.INTERACTIVE,
    requests_per_minute: Most = None,
    characters_per_minute: Most = None,
    characters_per_day: Most = None,
    interval_seconds: Annotated[int | None, typer.Option(min=1, help="Least time between two requests.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Most requests under way at once.")] = None,
    voices: Annotated[str | None, typer.Option(help="Voices that it may ask for, separated by commas.")] = None,
) -> None:
    """Make a key, and print it: this once, as only its digest is kept."""
    file, keys = _keys()
    if name in (key.name for key in keys):
        fail(f"there is a key {name!r} already; revoke it first, or choose another name", EXIT_REFUSED)
    secret = new_key()
    try:
        key = ApiKey(
            name=name,
            digest=digest_of(secret),
            created=datetime.now(UTC).replace(microsecond=0),
            priority=priority,
            requests_per_minute=requests_per_minute,
            characters_per_minute=characters_per_minute,
            characters_per_day=characters_per_day,
            interval_seconds=interval_seconds,
            concurrency=concurrency,
            voices=None if voices is None else tuple(part.strip() for part in voices.split(",") if part.strip()),
        )
    except ValidationError as error:
        fail(f"{error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}", EXIT_REFUSED)
    _write(file, (*keys, key))
    tell(f"key {name!r} in {file}; this is shown only now:")
    typer.echo(secret)
    if not keys:
        tell("from now on, the server asks everybody for a key")


@app.command("list")
def list_keys(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show the keys' names and limits."""
    _, keys = _keys()
    rows = [key.model_dump(mode="json", exclude={"digest"}, exclude_none=True) for key in keys]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    listing = Table("name", "created", "priority", "limits", "voices")
    for row in rows:
        limits = ", ".join(
            f"{name} {row[name]}" for name in row if name not in ("name", "created", "priority", "voices")
        )
        listing.add_row(
            row["name"], row.get("created", ""), row["priority"], limits, ", ".join(row.get("voices", ["any"]))
        )
    Console().print(listing)


@app.command()
def revoke(name: Annotated[str, typer.Argument(help="As `chorus keys list` has it.")]) -> None:
    """Take a key back; what it has in flight is still answered."""
    file, keys = _keys()
    rest = tuple(key for key in keys if key.name != name)
    if len(rest) == len(keys):
        known = ", ".join(key.name for key in keys) or "none"
        fail(f"there is no key {name!r} in {file}; there are: {known}", EXIT_REFUSED)
    _write(file, rest)
    tell(f"key {name!r} is revoked")


def _keys() -> tuple[Path, tuple[ApiKey, ...]]:
    try:
        file = Settings.load().keys_path
        return file, read_keys(file)
    except (SettingsError, KeysFileError) as error:
        fail(str(error))


def _write(file: Path, keys: tuple[ApiKey, ...]) -> None:
    try:
        write_keys(file, keys)
    except OSError as error:
        fail(f"cannot write {file}: {error.strerror}")
