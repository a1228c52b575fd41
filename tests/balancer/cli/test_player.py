"""Audio goes to a player as it comes; the players here are small programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from balancer.cli.player import PLAYERS, PlayerError, find_player, play


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def program(folder: Path, name: str, code: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{code}\n")
    path.chmod(0o755)


def test_the_first_player_that_is_installed_is_taken(programs: Path) -> None:
    program(programs, "aplay", "")
    assert find_player() == [str(programs / "aplay"), "-q", "-"]
    program(programs, "ffplay", "")
    assert find_player()[0] == str(programs / "ffplay")


def test_without_a_player_it_says_what_to_install(programs: Path) -> None:
    with pytest.raises(PlayerError, match="install ffmpeg"):
        find_player()
    assert all(name for name, *_ in PLAYERS)


def test_each_piece_is_played_before_the_next_is_made(programs: Path, tmp_path: Path) -> None:
    """The player tells through a FIFO that it has read the first piece, which the second waits for."""
    heard, seen = tmp_path / "heard", tmp_path / "seen"
    program(programs, "aplay", f"/usr/bin/head -c 5 >{heard}; /usr/bin/touch {seen}; /bin/cat >>{heard}")

    def pieces() -> Iterator[bytes]:
        yield b"first"
        while not seen.exists():
            pass
        yield b" second"

    play(find_player(), pieces())
    assert heard.read_bytes() == b"first second"


def test_a_player_that_fails_is_told_with_what_it_said(programs: Path) -> None:
    program(programs, "aplay", "echo 'no such device' >&2; exit 3")
    with pytest.raises(PlayerError, match=r"aplay could not play: no such device"):
        play(find_player(), iter([b"x" * 100_000] * 10))


def test_a_player_that_is_closed_ends_it(programs: Path) -> None:
    program(programs, "aplay", "exit 0")
    play(find_player(), iter([b"x" * 100_000] * 10))
