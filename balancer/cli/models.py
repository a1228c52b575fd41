"""`chorus models`: which engines' weights are on this host, fetching them and reading them in full."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from balancer.cli.console import fail, messages, tell
from balancer.launch.download import download as fetch
from balancer.launch.download import download_segmenter as fetch_segmenter
from worker.cards import CARDS
from worker.checkpoints.catalogue import (
    CHECKPOINTS,
    Checkpoint,
    CheckpointError,
    FileReport,
    FileState,
    MissingCheckpointError,
    find,
    how_to_repair,
    size_on_disk,
    verify,
)

app = typer.Typer(help="The engines' weights: what is on this host, fetching them, verifying them.")

Engines = Annotated[list[str] | None, typer.Argument(metavar="ENGINE...", help=f"Among {', '.join(CHECKPOINTS)}.")]
Revision = Annotated[
    str | None, typer.Option(help="Branch, tag or commit in the hub; left out: what this version was made with.")
]


@app.callback(invoke_without_command=True)
def models(context: typer.Context) -> None:
    """The engines' weights: what is on this host, fetching them, verifying them."""
    if context.invoked_subcommand is None:
        list_models()


@app.command("list")
def list_models() -> None:
    """List the engines, and whether their weights are on this host."""
    listing = Table("engine", Column("repository", overflow="fold"), "revision", "state", "size")
    listing.add_column("where", overflow="fold")
    for name in CARDS:
        if checkpoint := CHECKPOINTS.get(name):
            listing.add_row(name, checkpoint.repository, checkpoint.revision[:8], *_found(checkpoint))
        else:
            listing.add_row(name, "", "", "ready", "", "comes with the package")
    Console().print(listing)


@app.command()
def download(engines: Engines = None, revision: Revision = None) -> None:
    """Fetch the weights of engines from the hub into its cache, or what is missing or damaged of them."""
    if not engines:
        raise typer.BadParameter(f"name the engines: {', '.join(CHECKPOINTS)}")
    for checkpoint in _checkpoints(engines):
        try:
            folder = fetch(checkpoint, revision=revision, announce=tell)
        except CheckpointError as error:
            fail(str(error))
        size = decimal(size_on_disk(checkpoint, folder))
        tell(f"{checkpoint.engine}: ready, {size} in {folder}")
        if checkpoint.segments_chinese:
            try:
                fetch_segmenter(announce=tell)
            except CheckpointError as error:
                tell(f"{error}; until it is there, {checkpoint.engine} refuses Chinese, and speaks its other languages")


@app.command("verify")
def verify_models(
    engines: Engines = None,
    model_dir: Annotated[
        Path | None, typer.Option(help="Folder of one engine's weights; else the hub's cache.")
    ] = None,
    revision: Revision = None,
) -> None:
    """Read weights in full and say of each file whether it is whole; left out, of all engines on this host.

    Ends with exit code 1 where anything is wrong.
    """
    if model_dir is not None and len(engines or ()) != 1:
        raise typer.BadParameter("--model-dir holds the weights of one engine: name that one")
    listing = Table("engine", "file", "state", "size", "what was found")
    wrong = []
    for checkpoint in _checkpoints(engines or CHECKPOINTS):
        try:
            folder = _readable(checkpoint, model_dir and model_dir.absolute(), revision)
        except CheckpointError as error:
            if engines or not isinstance(error, MissingCheckpointError):
                wrong.append(str(error))
            continue
        reports = _read(checkpoint, folder)
        for report in reports:
            listing.add_row(checkpoint.engine, report.name, report.state, _size(report.size), report.detail)
        if any(report.state is not FileState.WHOLE for report in reports):
            wrong.append(
                f"{checkpoint.engine}'s weights in {folder} are not whole; {how_to_repair(checkpoint, folder)}"
            )
    if listing.row_count:
        Console().print(listing)
    elif not wrong and not engines:
        fail(f"no engine's weights are on this host; run: chorus models download {next(iter(CHECKPOINTS))}")
    if wrong:
        fail("\n".join(wrong))


def _size(size: int) -> str:
    return decimal(size) if size else ""


def _readable(checkpoint: Checkpoint, model_dir: Path | None, revision: str | None) -> Path:
    """The folder where there is something to read, whole or not. Raises CheckpointError."""
    try:
        return find(checkpoint, model_dir=model_dir, revision=revision)
    except CheckpointError as error:
        if error.folder is None:
            raise
        return error.folder


def _read(checkpoint: Checkpoint, folder: Path) -> list[FileReport]:
    """Verify a checkpoint behind a progress bar, on a terminal."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=messages,
        transient=True,
        disable=not messages.is_terminal,
    )
    with bar:
        task = bar.add_task(f"reading {checkpoint.engine}", total=size_on_disk(checkpoint, folder))
        return list(verify(checkpoint, folder, lambda size: bar.advance(task, size)))


def _checkpoints(engines: Iterable[str]) -> list[Checkpoint]:
    chosen = []
    for name in engines:
        if name not in CARDS:
            raise typer.BadParameter(f"there is no engine {name!r}; there are: {', '.join(CARDS)}")
        if name in CHECKPOINTS:
            chosen.append(CHECKPOINTS[name])
        else:
            tell(f"{name}: comes with the package, there is nothing to fetch or verify")
    return chosen


def _found(checkpoint: Checkpoint) -> tuple[str, str, str]:
    """State, size and place of a checkpoint in the hub's cache."""
    try:
        folder: Path | None = find(checkpoint, model_dir=None, revision=None)
        state = "ready"
    except CheckpointError as error:
        folder, state = error.folder, error.state
    if folder is None:
        return state, "", ""
    return state, decimal(size_on_disk(checkpoint, folder)), escape(str(folder))
