"""Voices for an event loop, which a folder that does not answer must not hold up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.harness import TIMEOUT, wait_until
from voices import watched_registry
from voices.registry import UNKNOWN_NAME_POLL_SECONDS, UnknownVoiceError, VoiceError
from voices.watched_registry import WatchedRegistry


def add(folder: Path, name: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "voice.toml").write_text(f'name = "{name}"\nengine = "*"\n')


class StuckRegistry(WatchedRegistry):
    """A registry whose folder stops answering while `answers` is not set."""

    def __init__(self, folder: Path) -> None:
        self.answers = threading.Event()
        self.answers.set()
        self.asked = threading.Event()
        super().__init__(folder)

    def _refresh(self, max_age: float) -> None:
        self.asked.set()
        self.answers.wait(TIMEOUT)
        super()._refresh(max_age)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    add(tmp_path, "alice")
    return tmp_path


@pytest.fixture
def stuck(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StuckRegistry]:
    monkeypatch.setattr(watched_registry, "RESCAN_SECONDS", 0.2)
    registry = StuckRegistry(folder)
    registry.answers.clear()
    yield registry
    registry.answers.set()


async def test_a_change_of_ones_own_is_noticed_at_once(folder: Path) -> None:
    registry = WatchedRegistry(folder)
    await registry.reload()
    add(folder, "bob")
    await registry.reload()
    assert registry.resolve("bob").name == "bob"


async def test_a_folder_that_does_not_answer_is_not_waited_for_after_a_change(stuck: StuckRegistry) -> None:
    await asyncio.wait_for(stuck.reload(), TIMEOUT)
    assert stuck.names == ("alice",)


def test_changes_are_noticed_without_being_asked_for(folder: Path) -> None:
    registry = WatchedRegistry(folder)
    assert registry.names == ("alice",)
    add(folder, "bob")
    wait_until(lambda: registry.names == ("alice", "bob"))


async def test_a_new_voice_can_be_used_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It would be noticed without being asked for.
    monkeypatch.setattr(watched_registry, "POLL_INTERVAL_SECONDS", TIMEOUT)
    registry = WatchedRegistry(folder)
    await asyncio.sleep(UNKNOWN_NAME_POLL_SECONDS)  # a folder is not scanned more often
    add(folder, "bob")
    with pytest.raises(UnknownVoiceError):
        registry.resolve("bob")
    await registry.rescan()
    assert registry.resolve("bob").name == "bob"


async def test_a_stuck_folder_holds_up_only_who_asks_for_an_unknown_voice(stuck: StuckRegistry) -> None:
    rescans = [asyncio.ensure_future(stuck.rescan()) for _ in range(3)]
    await asyncio.to_thread(stuck.asked.wait, TIMEOUT)
    started = time.monotonic()
    for _ in range(100):
        assert stuck.resolve("alice").name == "alice"
        assert [voice.name for voice in stuck] == ["alice"]
    # Whoever waits for the folder waits for most of TIMEOUT.
    assert time.monotonic() - started < TIMEOUT / 2, "not one of them waited for the folder"
    async with asyncio.timeout(TIMEOUT):
        await asyncio.gather(*rescans)
    with pytest.raises(UnknownVoiceError):
        stuck.resolve("bob")


async def test_a_thread_waits_no_longer(stuck: StuckRegistry) -> None:
    async with asyncio.timeout(TIMEOUT):
        await asyncio.to_thread(stuck.rescan_blocking)


async def test_the_fingerprint_of_a_clip(folder: Path) -> None:
    add(folder, "bob")
    (folder / "bob" / "voice.toml").write_text('name = "bob"\nreference = "clip.wav"\nsynthetic = true\n')
    (folder / "bob" / "clip.wav").write_bytes(b"clip")
    registry = WatchedRegistry(folder)
    voice = registry.resolve("bob")
    before = await registry.current_fingerprint(voice)
    (folder / "bob" / "clip.wav").write_bytes(b"another clip")
    assert await registry.current_fingerprint(voice) != before
    (folder / "bob" / "clip.wav").unlink()
    with pytest.raises(VoiceError, match="cannot read the reference clip"):
        await registry.current_fingerprint(voice)
