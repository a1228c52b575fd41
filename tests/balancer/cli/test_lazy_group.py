from __future__ import annotations

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from balancer.cli.lazy_group import lazy_group
from balancer.cli.main import COMMANDS
from balancer.cli.main import app as chorus
from tests.support.harness import ROOT, environment

group = typer.Typer()


@group.command()
def first() -> None:
    """Say one."""
    typer.echo("one")


@group.command()
def second() -> None:
    """Say two."""


def hello(name: str) -> None:
    """Greet."""
    typer.echo(f"hello {name}")


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer(cls=lazy_group({"hello": f"{__name__}:hello", "group": f"{__name__}:group"}))
    app.callback()(lambda: None)
    return app


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["hello", "Ada"], 0, "hello Ada"),
        (["group", "first"], 0, "one"),
        (["--help"], 0, "Greet."),
        (["group", "--help"], 0, "Say two."),
        (["goodbye"], 2, "No such command"),
        (["hello"], 2, "Missing argument"),
    ],
)
def test_subcommands(app: typer.Typer, arguments: list[str], code: int, said: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, said in result.output) == (code, True), result.output


def test_every_command_is_where_it_is_said_to_be() -> None:
    for name in COMMANDS:
        result = CliRunner().invoke(chorus, [name, "--help"], prog_name="chorus")
        assert result.exit_code == 0, result.output
        assert f"chorus {name}" in result.output
        assert "--install-completion" not in result.output


def test_a_command_loads_no_library_of_another_one() -> None:
    code = (
        "import sys; from balancer.cli.main import app; app(['keys', '-h'], standalone_mode=False); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), check=True, capture_output=True, text=True
    )
    assert not {"redis", "av", "numpy", "balancer.host.layout"} & set(done.stdout.split())
