"""Plays audio as it comes, with a player of this machine that reads WAV from its standard input."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

PLAYERS = (
    ("ffplay", "-nodisp", "-autoexit", "-loglevel", "error", "-i", "-"),
    ("mpv", "--no-video", "--really-quiet", "-"),
    ("play", "-q", "-t", "wav", "-"),  # SoX
    ("aplay", "-q", "-"),
    ("pw-play", "-"),
)
"""Commands of players; the first that is installed is taken."""


class PlayerError(Exception):
    """No player is installed, or it failed; the message says what to do."""


def find_player() -> list[str]:
    """The command of a player. Raises PlayerError."""
    for name, *arguments in PLAYERS:
        if (program := shutil.which(name)) is not None:
            return [program, *arguments]
    names = ", ".join(name for name, *_ in PLAYERS)
    raise PlayerError(f"no player is installed ({names}): install ffmpeg, or write a file with -o")


def play(command: list[str], pieces: Iterator[bytes]) -> None:
    """Play the pieces to their end, or until the player is closed. Raises PlayerError."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as player:
        assert player.stdin is not None and player.stderr is not None  # noqa: S101, PT018 - for mypy
        try:
            for piece in pieces:
                player.stdin.write(piece)
                player.stdin.flush()
            player.stdin.close()
        except BrokenPipeError:
            pass  # its exit code says whether it was closed or failed
        except BaseException:
            player.kill()
            raise
        said = player.stderr.read().decode(errors="replace").strip()
    if player.returncode:
        last = said.splitlines()[-1] if said else f"exit code {player.returncode}"
        raise PlayerError(f"{command[0]} could not play: {last}")
