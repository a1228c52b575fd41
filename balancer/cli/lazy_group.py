"""A command with subcommands, each of which is imported when it is called or listed, not when another one is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group


def lazy_group(subcommands: Mapping[str, str]) -> type[TyperGroup]:
    """A class of groups, for `typer.Typer(cls=…)`, with these subcommands in this order.

    The name of each leads to where it is, as `module:attribute`: a function, or a Typer application of its own.
    """

    class LazyGroup(TyperGroup):
        # Typer may have a click of its own, whose types differ from those of click.
        def list_commands(self, ctx: Any) -> list[str]:
            return list(subcommands)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            if cmd_name not in subcommands:
                return None
            module, attribute = subcommands[cmd_name].split(":")
            return _command(cmd_name, getattr(import_module(module), attribute))

    return LazyGroup


def _command(name: str, found: typer.Typer | Callable[..., Any]) -> Any:
    if isinstance(found, typer.Typer):
        group = get_group(found)
        group.name = name
        return group
    application = typer.Typer(add_completion=False)
    application.command(name)(found)
    return get_command(application)
