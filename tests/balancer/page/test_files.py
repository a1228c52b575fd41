"""The page's files: what is in memory, and that the vendored ones are those that were pinned."""

from __future__ import annotations

import gzip
import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from balancer.page.files import INDEX, STATIC, read_files
from tests.support.harness import ROOT

VENDORED = [STATIC / "vendor", ROOT / "tests/support/vendor"]
SCRIPTS = sorted(path for path in STATIC.rglob("*.js") if path.parent not in VENDORED)


def test_files_are_read_with_their_types(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "index.html").write_text("<p>ü")
    (tmp_path / "lib" / "a.js").write_text("1")
    (tmp_path / "notes.md").write_text("not served")
    files = read_files(tmp_path)
    assert files.keys() == {"index.html", "lib/a.js"}
    page = files["index.html"]
    assert page.media_type == "text/html; charset=utf-8"
    assert gzip.decompress(page.compressed) == page.content == "<p>ü".encode()
    assert files["lib/a.js"].media_type == "text/javascript; charset=utf-8"


def test_an_entity_tag_changes_with_the_content(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text("one")
    first = read_files(tmp_path)[INDEX]
    assert read_files(tmp_path)[INDEX] == first
    (tmp_path / INDEX).write_text("two")
    assert read_files(tmp_path)[INDEX].etag != first.etag
    assert re.fullmatch(r'"[0-9a-f]{32}"', first.etag)


@pytest.mark.parametrize("folder", VENDORED, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_vendored_files_have_the_recorded_digests(folder: Path) -> None:
    lines = [line.split() for record in folder.glob("*.sha256") for line in record.read_text().splitlines()]
    assert {name for _, name in lines} == {path.name for path in folder.iterdir() if path.suffix != ".sha256"}
    for digest, name in lines:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
    assert any(name.endswith(".LICENSE.txt") for _, name in lines)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(STATIC).as_posix())
def test_every_module_that_a_module_imports_is_there(script: Path) -> None:
    source = script.read_text()
    static = re.findall(r'^import [^"]*"([^"]+)";$', source, re.MULTILINE)
    for address in [*static, *re.findall(r'\bimport\("([^"]+)"\)', source)]:
        assert address.startswith("."), "nothing comes from elsewhere"
        assert (script.parent / address).resolve().is_file(), address


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(STATIC).as_posix())
def test_nothing_is_made_of_text_that_could_be_html(script: Path) -> None:
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", script.read_text())


CHECK = """
const {readFileSync} = require("fs"), {SourceTextModule} = require("vm");
for (const identifier of process.argv.slice(1)) new SourceTextModule(readFileSync(identifier, "utf8"), {identifier});
"""


def test_every_module_is_valid() -> None:
    command = ["node", "--no-warnings", "--experimental-vm-modules", "--eval", CHECK, *map(str, SCRIPTS)]
    subprocess.run(command, check=True, timeout=60)


def test_the_page_has_no_script_or_style_within() -> None:
    page = (STATIC / INDEX).read_text()
    assert "<style" not in page
    assert not re.search(r"\s(style|on\w+)=", page)
    assert re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL) == [""]
    for address in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert address == "docs" or (STATIC / address.removeprefix("page/")).is_file(), address
