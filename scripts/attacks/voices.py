"""Attacks by files in the folder of voices."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from scripts.attacks.attack import Attack, Checks, all_spoken
from scripts.attacks.target import ChorusPlan, Target
from scripts.attacks.texts import new_text

HUGE_BYTES = 150_000_000
REQUEST_SECONDS = 6.0


def _fifo(file: Path) -> None:
    os.mkfifo(file)


def _device(file: Path) -> None:
    file.symlink_to("/dev/zero")


def _huge(file: Path) -> None:
    file.write_bytes(b"# " + b"x" * HUGE_BYTES)


async def _odd_voice(target: Target, write: Callable[[Path], None]) -> Checks:
    """A voice whose file is not a small regular one appears while the server runs."""
    folder = target.voices_dir / "odd"
    folder.mkdir()
    file = folder / "voice.toml"
    await asyncio.to_thread(write, file)
    try:
        statuses = []
        until = time.monotonic() + target.duration
        while time.monotonic() < until:
            statuses.append(await target.speech_status(new_text(), timeout=REQUEST_SECONDS))
            await asyncio.sleep(0.25)
    finally:
        with suppress(OSError):  # nobody reads: let go whoever waits for a writer
            os.close(os.open(file, os.O_WRONLY | os.O_NONBLOCK))
        shutil.rmtree(folder)
    return [all_spoken("requests meanwhile", statuses)]


async def fifo(target: Target) -> Checks:
    """A named pipe that nobody writes to."""
    return await _odd_voice(target, _fifo)


async def device(target: Target) -> Checks:
    """A device that has no end."""
    return await _odd_voice(target, _device)


async def huge(target: Target) -> Checks:
    """A file of 150 MB."""
    return await _odd_voice(target, _huge)


PLAN = ChorusPlan(own_voices=True)

ATTACKS = (
    Attack("voice-fifo", "a voice's file is a named pipe", fifo, PLAN),
    Attack("voice-device", "a voice's file is /dev/zero", device, PLAN),
    Attack("voice-huge", "a voice's file has 150 MB", huge, PLAN),
)
