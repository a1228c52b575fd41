"""`chorus models`: lists, downloads and verifies the engines' weights on this host."""

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
from balancer.launch.download import download as download_checkpoint
from balancer.launch.download import download_segmenter
from worker.cards import CARDS
from worker.checkpoints.catalogue import (
    CHECKPOINTS,
    DOWNLOADS,
    MEANFLOW,
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

app = typer.Typer(help="List, download and verify the engines' weights on this host.")

EnginesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="ENGINE...", help=f"Engines, or the mean flow: {', '.join(DOWNLOADS)}.")
]
RevisionOption = Annotated[
    str | None,
    typer.Option(help="Branch, tag or commit on the Hugging Face hub; default: the one this version supports."),
]


@app.callback(invoke_without_command=True)
def models(context: typer.Context) -> None:
    """List, download and verify the engines' weights on this host."""
    if context.invoked_subcommand is None:
        list_models()


@app.command("list")
def list_models() -> None:
    """List the engines, and whether their weights are on this host."""
    table = Table(Column("engine", no_wrap=True), Column("repository", overflow="fold"), "revision", "state", "size")
    table.add_column("where", overflow="fold")
    for name in (*CARDS, MEANFLOW.engine):
        if checkpoint := DOWNLOADS.get(name):
            table.add_row(name, checkpoint.repository, checkpoint.revision[:8], *_cached(checkpoint))
        else:
            table.add_row(name, "", "", "ready", "", "comes with the package")
    Console().print(table)


@app.command()
def download(engines: EnginesArgument = None, revision: RevisionOption = None) -> None:
    """Download weights from the Hugging Face hub into its cache: all files that are missing or damaged."""
    if not engines:
        raise typer.BadParameter(f"name the engines: {', '.join(DOWNLOADS)}")
    for checkpoint in _checkpoints(engines):
        try:
            folder = download_checkpoint(checkpoint, revision=revision, announce=tell)
        except CheckpointError as error:
            fail(str(error))
        size = decimal(size_on_disk(checkpoint, folder))
        tell(f"{checkpoint.engine}: ready, {size} in {folder}")
        if checkpoint.segments_chinese:
            try:
                download_segmenter(announce=tell)
            except CheckpointError as error:
                others = " but speaks its other languages" if len(checkpoint.languages) > 1 else ""
                tell(f"{error}; without it, {checkpoint.engine} refuses Chinese{others}")


@app.command("verify")
def verify_models(
    engines: EnginesArgument = None,
    model_dir: Annotated[
        Path | None, typer.Option(help="Directory of one engine's weights; default: the cache of the Hugging Face hub.")
    ] = None,
    revision: RevisionOption = None,
) -> None:
    """Read weights to their end and report the state of each file; default: the weights of all engines on this host.

    The exit code is 1 if a file is missing or damaged.
    """
    if model_dir is not None and len(engines or ()) != 1:
        raise typer.BadParameter("--model-dir holds the weights of one engine: name that engine")
    table = Table(Column("engine", no_wrap=True), "file", "state", "size", "details")
    errors = []
    for checkpoint in _checkpoints(engines or DOWNLOADS):
        try:
            folder = _checkpoint_folder(checkpoint, model_dir and model_dir.absolute(), revision)
        except CheckpointError as error:
            if engines or not isinstance(error, MissingCheckpointError):
                errors.append(str(error))
            continue
        reports = _verify(checkpoint, folder)
        for report in reports:
            table.add_row(checkpoint.engine, report.name, report.state, _size(report.size), report.detail)
        if any(report.state is not FileState.WHOLE for report in reports):
            errors.append(
                f"{checkpoint.engine}'s weights in {folder} are not whole; {how_to_repair(checkpoint, folder)}"
            )
    if table.row_count:
        Console().print(table)
    elif not errors and not engines:
        fail(f"no engine's weights are on this host; run: chorus models download {next(iter(CHECKPOINTS))}")
    if errors:
        fail("\n".join(errors))


def _size(size: int) -> str:
    return decimal(size) if size else ""


def _checkpoint_folder(checkpoint: Checkpoint, model_dir: Path | None, revision: str | None) -> Path:
    """Returns the folder of the weights, even if files are missing. Raises CheckpointError if there is none."""
    try:
        return find(checkpoint, model_dir=model_dir, revision=revision)
    except CheckpointError as error:
        if error.folder is None:
            raise
        return error.folder


def _verify(checkpoint: Checkpoint, folder: Path) -> list[FileReport]:
    """Verifies a checkpoint, with a progress bar on a terminal."""
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
        if name in DOWNLOADS:
            chosen.append(DOWNLOADS[name])
        elif name in CARDS:
            tell(f"{name}: comes with the package; there is nothing to download or verify")
        else:
            known = ", ".join((*CARDS, MEANFLOW.engine))
            raise typer.BadParameter(f"there is no engine {name!r}; there are: {known}")
    return chosen


def _cached(checkpoint: Checkpoint) -> tuple[str, str, str]:
    """Returns state, size and folder of a checkpoint in the hub's cache."""
    try:
        folder: Path | None = find(checkpoint, model_dir=None, revision=None)
        state = "ready"
    except CheckpointError as error:
        folder, state = error.folder, error.state
    if folder is None:
        return state, "", ""
    return state, decimal(size_on_disk(checkpoint, folder)), escape(str(folder))
