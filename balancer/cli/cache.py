"""`chorus cache`: how full the audio cache is, and emptying it, whether or not a server runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from balancer.cache.store import AudioStore, StoreError
from balancer.cli.console import fail, tell
from balancer.settings import Settings, SettingsError
from balancer.stores import open_stores

app = typer.Typer(help="The audio cache: how full it is, and emptying it.", no_args_is_help=True)

T = TypeVar("T")


@app.command()
def stats(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Show how much audio is kept, and where."""
    found = _ask(lambda store: store.stats())
    if as_json:
        typer.echo(json.dumps(vars(found), indent=2))
        return
    typer.echo(f"{found.entries} entries, {found.bytes / 2**20:.1f} of {found.limit / 2**20:.0f} MiB in {found.where}")


@app.command()
def clear() -> None:
    """Drop all kept audio. A running server makes anew what it is asked for."""
    tell(f"{_ask(lambda store: store.clear())} entries dropped")


def _ask(question: Callable[[AudioStore], Awaitable[T]]) -> T:
    async def ask() -> T:
        stores = open_stores(Settings.load().storage)
        if stores.audio is None:
            fail("nothing is kept: CHORUS_CACHE_MIB is 0")
        try:
            return await question(stores.audio)
        finally:
            await stores.aclose()

    try:
        return asyncio.run(ask())
    except (SettingsError, StoreError) as error:
        fail(str(error))
