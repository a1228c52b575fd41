"""`chorus keys`: adds and revokes API keys in the keys file, which a running server reads again after each change."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from balancer.access.api_keys import ApiKey, KeysFileError, Role, digest_of, new_key, read_keys, update_keys
from balancer.cli.console import EXIT_REFUSED, fail, tell
from balancer.scheduling.priority import Priority
from balancer.settings.settings import Settings, SettingsError

app = typer.Typer(
    help="List, add and revoke API keys. Changes take effect in a running server within a second.", no_args_is_help=True
)


@app.command()
def add(
    name: Annotated[
        str, typer.Argument(help="Name of the key's owner: letters, digits, dots, dashes and underscores.")
    ],
    *,
    role: Annotated[
        Role, typer.Option(help="client: may use the server; operator: may add and remove voices and drain it, too.")
    ] = Role.CLIENT,
    priority: Annotated[Priority, typer.Option(help="Highest priority of its requests.")] = Priority.INTERACTIVE,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Maximum requests per minute.")] = None,
    characters_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Maximum characters of text per minute.")
    ] = None,
    characters_per_day: Annotated[int | None, typer.Option(min=1, help="Maximum characters of text per day.")] = None,
    interval_seconds: Annotated[int | None, typer.Option(min=1, help="Minimum seconds between two requests.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Maximum requests in flight at once.")] = None,
    voices: Annotated[
        str | None,
        typer.Option(
            help="Voices that its requests may use, separated by commas (a name with one in quotes); default: all."
        ),
    ] = None,
) -> None:
    """Add a key and print it. It is shown only once: the file holds just its digest.

    Limits that are left out are those of the server's settings.
    """
    secret = new_key()
    try:
        key = ApiKey(
            name=name,
            digest=digest_of(secret),
            created=datetime.now(UTC).replace(microsecond=0),
            role=role,
            priority=priority,
            requests_per_minute=requests_per_minute,
            characters_per_minute=characters_per_minute,
            characters_per_day=characters_per_day,
            interval_seconds=interval_seconds,
            concurrency=concurrency,
            voices=None if voices is None else _listed(voices),
        )
    except ValidationError as error:
        fail(f"{error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}", EXIT_REFUSED)
    earlier: tuple[ApiKey, ...] = ()

    def added(keys: tuple[ApiKey, ...]) -> tuple[ApiKey, ...]:
        nonlocal earlier
        if name in (other.name for other in keys):
            fail(f"there is already a key {name!r}; revoke it first, or choose another name", EXIT_REFUSED)
        earlier = keys
        return *keys, key

    file = _update(added)
    tell(f"added key {name!r} to {file}; it is not shown again:")
    typer.echo(secret)
    if not earlier:
        tell("from now on the server requires an API key for every request")


@app.command("list")
def list_keys(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the keys with their limits."""
    try:
        keys = read_keys(_file())
    except KeysFileError as error:
        fail(str(error))
    rows = [key.model_dump(mode="json", exclude={"digest"}, exclude_none=True) for key in keys]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table("name", "role", "created", "priority", "limits", "voices")
    for row in rows:
        limits = ", ".join(
            f"{name} {row[name]}" for name in row if name not in ("name", "role", "created", "priority", "voices")
        )
        voices = escape(", ".join(row.get("voices", ["any"])))
        table.add_row(row["name"], row["role"], row.get("created", "")[:10], row["priority"], limits, voices)
    Console().print(table)


@app.command()
def revoke(name: Annotated[str, typer.Argument(help="Name of the key, as `chorus keys list` shows it.")]) -> None:
    """Revoke a key. Its requests in flight are still answered."""

    def without(keys: tuple[ApiKey, ...]) -> tuple[ApiKey, ...]:
        remaining = tuple(key for key in keys if key.name != name)
        if len(remaining) == len(keys):
            known = ", ".join(key.name for key in keys) or "none"
            fail(f"there is no key {name!r} in {_file()}; there are: {known}", EXIT_REFUSED)
        return remaining

    _update(without)
    tell(f"revoked key {name!r}")


def _listed(names: str) -> tuple[str, ...]:
    """The names of a list with commas; those in quotes may have commas themselves."""
    rows = csv.reader(names.splitlines(), skipinitialspace=True)
    return tuple(name for row in rows for part in row if (name := part.strip()))


def _file() -> Path:
    try:
        return Settings.load().keys_path
    except SettingsError as error:
        fail(str(error))


def _update(change: Callable[[tuple[ApiKey, ...]], tuple[ApiKey, ...]]) -> Path:
    """Change the keys of the file; returns its path. Commands at once take turns."""
    file = _file()
    try:
        update_keys(file, change)
    except KeysFileError as error:
        fail(str(error))
    except OSError as error:
        fail(f"cannot write {file}: {error.strerror}")
    return file
