"""What the README and docs/configuration.md say is so."""

from __future__ import annotations

import re
from pathlib import Path

from balancer.cli.main import COMMANDS
from balancer.cli.settings_list import settings_markdown

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()


def test_the_tables_of_settings_are_the_generated_ones() -> None:
    tables = re.search(r"<!-- settings: .*? -->\n(.*?)<!-- end of settings -->", CONFIGURATION, re.DOTALL)
    assert tables is not None
    assert tables[1] == settings_markdown(), "run `chorus settings --markdown` and put its output there"


def test_every_command_it_names_exists() -> None:
    named = set(re.findall(r"`chorus ([a-z-]+)", README))
    assert named == set(COMMANDS)


def test_every_file_it_names_exists() -> None:
    named = re.findall(r"`((?:scripts|deploy|balancer|worker|voices|tests)/[\w./]*)", README)
    assert {name for name in named if not (ROOT / name).exists()} == set()
