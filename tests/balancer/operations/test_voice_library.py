"""The folder of voices, edited for operators."""

from __future__ import annotations

import asyncio
import io
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from balancer import errors
from balancer.operations.voice_library import MAX_WAITING, VoiceLibrary
from balancer.requests.voice_form import VoiceForm
from tests.support.recordings import record, speech
from voices import clips, isolated_inspection, voice_editor
from voices.registry import Voice
from voices.watched_registry import WatchedRegistry

ADA = VoiceForm(name="ada", synthetic=True)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return record(tmp_path_factory.mktemp("clips") / "clip.wav", speech(6)).read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    own = tmp_path / "voices" / "default"
    own.mkdir(parents=True)
    (own / "voice.toml").write_text('name = "default"\nengine = "*"\n')
    return own.parent


@pytest.fixture
def registry(folder: Path) -> WatchedRegistry:
    return WatchedRegistry(folder)


@pytest.fixture
def library(folder: Path, registry: WatchedRegistry, monkeypatch: pytest.MonkeyPatch) -> Iterator[VoiceLibrary]:
    """A library that inspects clips in this process: `voices.isolated_inspection` has tests of its own."""
    monkeypatch.setattr(isolated_inspection, "inspect", clips.inspect)
    library = VoiceLibrary(folder, folder.parent / "cache", registry)
    yield library
    library.close()


async def test_a_voice_is_known_to_every_process_once_it_is_added(
    library: VoiceLibrary, registry: WatchedRegistry, folder: Path, sound: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, loop, add = WatchedRegistry(folder), asyncio.get_running_loop(), voice_editor.add

    def add_just_after_a_worker_has_looked(*args: Any, **options: Any) -> Voice:
        asyncio.run_coroutine_threadsafe(worker.reload(), loop).result()
        return add(*args, **options)

    monkeypatch.setattr(voice_editor, "add", add_just_after_a_worker_has_looked)
    await library.add(ADA, io.BytesIO(sound))
    assert registry.resolve("ada").synthetic
    await worker.rescan()  # as a worker does for a voice that it does not know
    assert worker.resolve("ada").synthetic


async def test_a_voice_is_unknown_once_it_is_removed(
    library: VoiceLibrary, registry: WatchedRegistry, sound: bytes
) -> None:
    await library.add(ADA, io.BytesIO(sound))
    await library.remove("ada")
    assert registry.names == ("default",)


@pytest.mark.parametrize("sound", [b"no sound", b""])
async def test_nothing_is_left_of_a_recording_that_is_refused(
    library: VoiceLibrary, folder: Path, tmp_path: Path, sound: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    with pytest.raises(errors.ClipRefusedError):
        await library.add(ADA, io.BytesIO(sound))
    assert [path.name for path in folder.iterdir()] == ["default"]
    assert list((tmp_path / "scratch").iterdir()) == []


async def test_nothing_is_left_of_a_voice_that_cannot_be_written(
    library: VoiceLibrary, folder: Path, sound: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(errors.VoicesUnavailableError, match="No space left"):
        await library.add(ADA, io.BytesIO(sound))
    assert [path.name for path in folder.iterdir()] == ["default"]


async def test_requests_take_turns_and_too_many_are_refused(
    library: VoiceLibrary, sound: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on, running, most = threading.Event(), [], []

    def inspect(path: Path) -> clips.Clip:
        running.append(path)
        most.append(len(running))
        may_go_on.wait()
        running.pop()
        return clips.inspect(path)

    monkeypatch.setattr(isolated_inspection, "inspect", inspect)
    adding = [
        asyncio.create_task(library.add(VoiceForm(name=f"v{number}", synthetic=True), io.BytesIO(sound)))
        for number in range(MAX_WAITING + 3)
    ]
    done, _ = await asyncio.wait(adding, return_when=asyncio.FIRST_COMPLETED)
    may_go_on.set()
    results = await asyncio.gather(*adding, return_exceptions=True)
    refused = {str(task.exception()) for task in done if isinstance(task.exception(), errors.VoicesUnavailableError)}
    assert refused == {"too many requests for voices are waiting; try again later"}
    assert all(isinstance(task.exception(), errors.VoicesUnavailableError) for task in done)
    assert sum(isinstance(result, errors.VoicesUnavailableError) for result in results) in {2, 3}
    assert max(most) == 1
