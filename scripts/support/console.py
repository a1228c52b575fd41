"""How a command runs, reports its progress and fails: results go to standard output, all else to standard error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

stderr = Console(stderr=True)

JsonOption = Annotated[Path | None, typer.Option("--json", help="Also write the result to this file.")]
"""An option that several commands share."""


def run_command(command: Callable[..., None], program: str) -> None:
    """Run a function with typer options as a command line, under the name of the file that starts it."""
    app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)
    app.command()(command)
    app(prog_name=program)


def report_progress(message: str) -> None:
    """Print one line about the progress."""
    stderr.print(message, markup=False, highlight=False, soft_wrap=True)


def fail(program: str, error: Exception) -> NoReturn:
    """Print an error and exit with 1."""
    stderr.print(f"{program}: {error}", markup=False, highlight=False, soft_wrap=True, style="red")
    raise typer.Exit(1) from error
