"""`chorus jobs`: how many there are, which failed and why, and queueing those again, whether or not a server runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from balancer.cli.console import EXIT_REFUSED, fail, tell
from balancer.jobs.store import JobStore, JobStoreError
from balancer.settings import Settings, SettingsError
from balancer.stores import open_stores

app = typer.Typer(help="Jobs: counts, those that failed, and another try for them.", no_args_is_help=True)

T = TypeVar("T")


@app.command()
def stats() -> None:
    """Show how many jobs are in each state."""
    for state, count in _ask(lambda store: store.counts()).items():
        typer.echo(f"{state.value:10} {count}")


@app.command()
def failed(most: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20) -> None:
    """Show the latest jobs that failed, and why."""
    listing = Table("id", "caller", "attempts", "reason", "text")
    for job in _ask(lambda store: store.failed(most)):
        reason = "" if job.error is None else f"{job.error.code}: {job.error.message}"
        listing.add_row(job.id, job.caller, str(job.attempts), reason, str(job.body.get("text", ""))[:60])
    Console().print(listing)


@app.command()
def retry(job_id: Annotated[str, typer.Argument(help="As `chorus jobs failed` shows it.")]) -> None:
    """Queue a job that failed once more."""
    if _ask(lambda store: store.requeue(job_id)) is None:
        fail(f"there is no failed job {job_id}", EXIT_REFUSED)
    tell(f"job {job_id} is queued again")


def _ask(question: Callable[[JobStore], Awaitable[T]]) -> T:
    async def ask() -> T:
        stores = open_stores(Settings.load().storage)
        try:
            return await question(stores.jobs)
        finally:
            await stores.aclose()

    try:
        return asyncio.run(ask())
    except (SettingsError, JobStoreError) as error:
        fail(str(error))
