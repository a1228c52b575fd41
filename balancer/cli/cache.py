"""`chorus cache`: shows the size of the audio cache and clears it. It works without a running server, too."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from balancer.cache.store import AudioStore, StoreError
from balancer.cli.console import fail, tell
from balancer.settings.settings import Settings, SettingsError
from balancer.stores import open_stores

app = typer.Typer(help="Show the size of the audio cache, and clear it.", no_args_is_help=True)

T = TypeVar("T")


@app.command()
def stats(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print the number of entries, the size and the location of the cache."""
    cache_stats = _query(lambda store: store.stats())
    if as_json:
        typer.echo(json.dumps(vars(cache_stats), indent=2))
        return
    used, limit = cache_stats.bytes / 2**20, cache_stats.limit / 2**20
    typer.echo(f"{cache_stats.entries} entries, {used:.1f} of {limit:.0f} MiB in {cache_stats.where}")


@app.command()
def clear() -> None:
    """Delete all audio in the cache. A running server synthesizes it again on request."""
    tell(f"deleted {_query(lambda store: store.clear())} entries")


def _query(query: Callable[[AudioStore], Awaitable[T]]) -> T:
    async def run() -> T:
        stores = open_stores(Settings.load().storage)
        if stores.audio is None:
            fail("the audio cache is disabled: CHORUS_CACHE_MIB is 0")
        try:
            return await query(stores.audio)
        finally:
            await stores.aclose()

    try:
        return asyncio.run(run())
    except (SettingsError, StoreError) as error:
        fail(str(error))
