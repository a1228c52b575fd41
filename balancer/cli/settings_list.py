"""`chorus settings`: lists all settings."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from balancer.settings.settings import SettingsTable, tables


def settings(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown: a heading and a table for each group.")
    ] = False,
) -> None:
    """List all settings by group: environment variable, default and meaning."""
    if markdown:
        typer.echo(settings_markdown(), nl=False)
        return
    console = Console()
    for group in tables():
        listing = Table("variable", "default", "meaning", title=group.title, title_justify="left")
        for row in group.rows:
            listing.add_row(*row)
        console.print(listing)


def settings_markdown() -> str:
    """Returns the settings as docs/configuration.md holds them: a heading and a table for each group."""
    return "\n".join(_group_markdown(group) for group in tables())


def _group_markdown(group: SettingsTable) -> str:
    rows = [f"| `{name}` | {f'`{default}`' if default else ''} | {meaning} |" for name, default, meaning in group.rows]
    return "\n".join([f"## {group.title}", "", "| variable | default | meaning |", "|---|---|---|", *rows, ""])
