"""`chorus jobs`: counts jobs, lists failed jobs and queues them again. It works without a running server, too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from balancer.cli.console import EXIT_REFUSED, fail, tell
from balancer.jobs.store import JobStore, JobStoreError
from balancer.settings.settings import Settings, SettingsError
from balancer.stores import open_stores

app = typer.Typer(help="Count jobs, list failed jobs and retry them.", no_args_is_help=True)

T = TypeVar("T")


@app.command()
def stats() -> None:
    """Print the number of jobs in each state."""
    for state, count in _query(lambda store: store.counts()).items():
        typer.echo(f"{state.value:10} {count}")


@app.command()
def failed(limit: Annotated[int, typer.Option(min=1, help="Maximum number of jobs to list.")] = 20) -> None:
    """List the jobs that failed most recently, with the reason."""
    table = Table("id", "caller", "attempts", "reason", "text")
    for job in _query(lambda store: store.failed(limit)):
        reason = "" if job.error is None else f"{job.error.code}: {job.error.message}"
        table.add_row(job.id, job.caller, str(job.attempts), reason, str(job.body.get("text", ""))[:60])
    Console().print(table)


@app.command()
def retry(job_id: Annotated[str, typer.Argument(help="Id of the job, as `chorus jobs failed` shows it.")]) -> None:
    """Queue a failed job again."""
    if _query(lambda store: store.requeue(job_id)) is None:
        fail(f"there is no failed job {job_id}", EXIT_REFUSED)
    tell(f"queued job {job_id} again")


def _query(query: Callable[[JobStore], Awaitable[T]]) -> T:
    async def run() -> T:
        settings = Settings.load()
        stores = open_stores(settings.storage, settings.jobs)
        try:
            return await query(stores.jobs)
        finally:
            await stores.aclose()

    try:
        return asyncio.run(run())
    except (SettingsError, JobStoreError) as error:
        fail(str(error))
