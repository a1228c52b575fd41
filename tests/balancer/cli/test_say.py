"""`chorus say` of pipes, documents and long texts; test_main.py has the rest."""

from __future__ import annotations

import io
import os
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import Result

from tests.support.cli import clean_shell, invoke
from tests.support.epubs import book, page
from tests.support.harness import Server, serve_stub

SECONDS = 100_000 / 2 / 24_000
"""Duration of a stub's audio for one segment."""
LIMIT = 100


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve_stub(max_text_characters=LIMIT, max_job_text_characters=10 * LIMIT, job_attempts=1) as server:
        yield server


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current directory, a wide terminal, no variables."""
    monkeypatch.chdir(tmp_path)
    clean_shell(monkeypatch)


def say(server: Server, *arguments: str, stdin: bytes = b"") -> Result:
    return invoke("say", *arguments, stdin=stdin, CHORUS_URL=server.url)


def seconds(path: str) -> float:
    with wave.open(io.BytesIO(Path(path).read_bytes())) as file:
        return float(file.getnframes() / file.getframerate())


def test_a_pipe_needs_no_dash(server: Server) -> None:
    result = say(server, "-o", "a.wav", stdin=b"Hello.")
    assert (result.exit_code, result.stderr) == (0, "a.wav: 2.1 s of wav\n")
    assert say(server, "-o", "b.wav").exit_code == 2, "an empty pipe"


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.txt", b"Hello."), ("a.MD", b"*Hello there.*"), ("a.epub", book({"a.xhtml": page("Hello.")}))],
)
def test_a_document(server: Server, name: str, content: bytes) -> None:
    Path(name).write_bytes(content)
    result = say(server, "--file", name, "-o", "a.wav")
    assert (result.exit_code, result.stderr) == (0, "a.wav: 2.1 s of wav\n")


def test_a_chapter_of_a_document(server: Server) -> None:
    Path("a.md").write_text(f"# One\n\n{'long ' * 500}\n\n# Two\n\nShort.")
    assert say(server, "-f", "a.md", "--chapter", "2", "-o", "a.wav").exit_code == 0
    assert SECONDS < seconds("a.wav") < 2 * SECONDS
    result = say(server, "-f", "a.md", "--chapter", "3", "-o", "a.wav")
    assert result.exit_code == 1
    assert result.stderr == "chorus: a.md has no chapter 3; it has\n  1  One\n  2  Two\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.epub", b"no zip", "chorus: a.epub: it is no whole EPUB: copy it, or save it, again\n"),
        (
            "a.txt",
            b"Zo\xeb",
            "chorus: a.txt: it is not text in UTF-8 (line 1): save it again with the encoding UTF-8\n",
        ),
        ("a.md", b"", "chorus: a.md: there is no text in it\n"),
    ],
)
def test_a_document_that_cannot_be_read(server: Server, name: str, content: bytes, message: str) -> None:
    Path(name).write_bytes(content)
    result = say(server, "--file", name, "-o", "a.wav")
    assert (result.exit_code, result.stderr) == (1, message)


def test_a_document_that_is_missing(server: Server) -> None:
    assert say(server, "--file", "a.txt").stderr == "chorus: there is no file a.txt\n"


@pytest.mark.parametrize("name", ["a.pdf", "a.csv", "a"])
def test_a_document_of_another_type(server: Server, name: str) -> None:
    Path(name).write_bytes(b"text\nHello.")
    assert say(server, "--file", name).exit_code == 2


@pytest.mark.parametrize("arguments", [["Hello.", "--file", "a.txt"], ["Hello.", "--chapter", "1"]])
def test_options_that_do_not_fit(server: Server, arguments: list[str]) -> None:
    assert say(server, *arguments).exit_code == 2


LONG = "This is a sentence of a text. " * 10


def test_a_long_text_becomes_a_job_whose_audio_is_whole(server: Server) -> None:
    result = say(server, LONG, "-o", "a.wav")
    assert result.exit_code == 0
    first, last = result.stderr.splitlines()
    assert first.startswith("the text is long: it becomes the job ")
    assert last == f"a.wav: {seconds('a.wav'):.1f} s of wav"
    job_id = first.split()[8].rstrip(",")
    assert server.client.get(f"/status/{job_id}").json()["duration"] == pytest.approx(seconds("a.wav"), abs=0.001)


def test_a_long_text_is_listened_to_while_it_is_made(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, player = tmp_path / "heard.wav", tmp_path / "ffplay"
    player.write_text(f"#!/bin/sh\n/bin/cat >{heard}\n")
    player.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert say(server, LONG, "--play").exit_code == 0
    assert heard.read_bytes().startswith(b"RIFF")
    assert len(heard.read_bytes()) > 2 * SECONDS * 24_000 * 2


def test_a_text_that_is_too_long_for_a_job(server: Server) -> None:
    result = say(server, "word " * 400, "-o", "a.wav")
    assert result.exit_code == 1
    assert "the limit is 1000; for a part of a document, use --chapter" in result.stderr
    assert not Path("a.wav").exists()


def test_a_job_that_fails(server: Server) -> None:
    result = say(server, LONG + "\n\nfail", "-o", "a.wav")
    assert result.exit_code == 1
    assert "has ended: " in result.stderr
