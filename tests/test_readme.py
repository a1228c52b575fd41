"""What the README and docs/configuration.md say is so, and every document leads to others that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from balancer.cli.main import COMMANDS
from balancer.cli.settings_list import settings_markdown

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


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


def links(document: Path) -> list[tuple[str, str]]:
    """Files and anchors of the links of a document to others of the repository."""
    prose = re.sub(r"`[^`]*`", "", document.read_text())
    return re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", prose)


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    for target, anchor in links(document):
        file = document.parent / target if target else document
        assert file.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in anchors(file), f"{target}#{anchor}: there is no such heading"


def test_every_document_is_linked_from_another() -> None:
    linked = {(document.parent / target).resolve() for document in DOCUMENTS for target, _ in links(document)}
    assert {document.name for document in (ROOT / "docs").glob("*.md") if document not in linked} == set()
