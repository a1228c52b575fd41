"""The `chorus` command: starts the server, and sends requests to a running one as any other client does."""

from __future__ import annotations

from typing import Annotated

import typer

from balancer.cli.lazy_group import lazy_group
from balancer.version import FULL_VERSION

COMMANDS = {
    "serve": "balancer.cli.serve:serve",
    "layout": "balancer.cli.serve:layout",
    "settings": "balancer.cli.settings_list:settings",
    "say": "balancer.cli.say:say",
    "voices": "balancer.cli.voices:app",
    "jobs": "balancer.cli.jobs:app",
    "cache": "balancer.cli.cache:app",
    "keys": "balancer.cli.keys:app",
    "status": "balancer.cli.status:status",
    "drain": "balancer.cli.operate:drain",
    "resume": "balancer.cli.operate:resume",
    "restart": "balancer.cli.operate:restart",
    "capacity": "balancer.cli.capacity:capacity",
    "models": "balancer.cli.models:app",
    "calibrate": "balancer.cli.calibrate:calibrate",
    "check-precision": "balancer.cli.check_precision:check_precision",
}
"""Each command, and where it is. It is loaded when it is called: half of a second of imports is for a few of them."""

app = typer.Typer(
    cls=lazy_group(COMMANDS),
    help="Text to speech at scale from ordinary CPU hosts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Runs the command."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"chorus {FULL_VERSION}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Text to speech at scale from ordinary CPU hosts."""
