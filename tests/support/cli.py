"""Runs the `chorus` command in this process, in a shell that knows nothing of this machine's."""

from __future__ import annotations

import os

import pytest
from typer.testing import CliRunner, Result

from balancer.cli.main import app


def invoke(*arguments: str, stdin: str | bytes = "", **variables: str) -> Result:
    """The result of the command with these environment variables. Raises what the command lets escape."""
    result = CliRunner().invoke(app, arguments, input=stdin, env=variables)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def clean_shell(monkeypatch: pytest.MonkeyPatch, *, columns: int = 250, prefixes: tuple[str, ...] = ()) -> None:
    """Have a wide terminal, and no variables of Chorus's, nor any with these prefixes."""
    for name in os.environ:
        if name.startswith(("CHORUS_", *prefixes)):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", str(columns))
