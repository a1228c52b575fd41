from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import IO

import pytest

from balancer.audio.buffers import AudioBuffer, FileBuffer, MemoryBuffer, PrefixedBuffer
from balancer.audio.held_audio import MAX_IN_MEMORY_BYTES, HeldAudio
from balancer.errors import MemoryFullError
from balancer.settings.limits import PROGRAM_MIB, MemorySettings

MIB = 2**20
SETTINGS = MemorySettings(memory_mib=PROGRAM_MIB + 64, spool_mib=256, memory_caller_percent=25)


@pytest.fixture
def held() -> HeldAudio:
    return HeldAudio(SETTINGS)


def file_of(tmp_path: Path, content: bytes) -> FileBuffer:
    path = tmp_path / "audio"
    path.write_bytes(b"head" + content)
    with path.open("rb") as file:
        return FileBuffer(os.dup(file.fileno()), 4, len(content))


@pytest.mark.parametrize("kind", ["memory", "file", "prefixed"])
def test_every_buffer_reads_the_same(kind: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * 5
    audio: AudioBuffer
    match kind:
        case "memory":
            audio = MemoryBuffer(content)
        case "file":
            audio = file_of(tmp_path, content)
        case _:
            audio = PrefixedBuffer(content[:44], MemoryBuffer(content[44:]))
    assert len(audio) == len(content)
    assert bytes(audio) == content
    assert b"".join(audio.pieces(100)) == content
    for start, size in ((0, 10), (40, 10), (44, 1), (1270, 100), (0, 5000)):
        assert audio.read(start, size) == content[start : start + size]


def test_a_file_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    audio = file_of(tmp_path, bytes(1000))
    (tmp_path / "audio").write_bytes(b"")
    with pytest.raises(OSError, match="too early"):
        audio.read(0, 100)


async def test_small_audio_stays_in_memory_and_is_counted_while_it_is_read(held: HeldAudio) -> None:
    audio = await held.hold(MemoryBuffer(bytes(MIB)), "one")
    assert audio.in_memory
    assert held.memory.taken == MIB
    prefixed = PrefixedBuffer(b"head", audio)
    del audio
    assert held.memory.taken == MIB, "another buffer reads it"
    del prefixed
    gc.collect()
    assert held.memory.taken == 0


async def test_large_audio_goes_to_a_file(held: HeldAudio) -> None:
    content = bytes([7]) * (MAX_IN_MEMORY_BYTES + 1)
    audio = await held.hold(MemoryBuffer(content), "one")
    assert not audio.in_memory
    assert (held.memory.taken, held.files.taken) == (0, len(content))
    assert await held.read(audio, len(content) - 2, 10) == bytes([7, 7])
    del audio
    gc.collect()
    assert held.files.taken == 0


async def test_past_the_share_of_memory_audio_goes_to_files_and_past_theirs_it_is_refused(held: HeldAudio) -> None:
    kept = [await held.hold(MemoryBuffer(bytes(MIB)), "greedy") for _ in range(64 // 4 + 256 // 4)]
    assert sum(audio.in_memory for audio in kept) == 64 // 4
    with pytest.raises(MemoryFullError):
        await held.hold(MemoryBuffer(bytes(MIB)), "greedy")
    assert (await held.hold(MemoryBuffer(bytes(MIB)), "modest")).in_memory, "a caller's share is not all"
    kept.clear()
    gc.collect()
    assert (held.memory.taken, held.files.taken) == (0, 0)


def test_written_audio_is_held_where_it_fits(held: HeldAudio) -> None:
    def fill(size: int) -> AudioBuffer:
        def write(file: IO[bytes]) -> None:
            file.write(bytes(size))
            file.seek(0)
            file.write(b"head")

        return held.write("one", write)

    small, large = fill(1000), fill(MAX_IN_MEMORY_BYTES + 1000)
    assert (small.in_memory, large.in_memory) == (True, False)
    assert bytes(small) == b"head" + bytes(996)
    assert large.read(0, 8) == b"head" + bytes(4)
    assert len(large) == MAX_IN_MEMORY_BYTES + 1000


async def test_past_the_limit_of_waiting_writers_audio_is_refused(held: HeldAudio) -> None:
    held.close()  # no thread takes work any more, as if all were busy and as many calls waited as may
    with pytest.raises(MemoryFullError) as refused:
        await held.assemble("a", lambda _: None)
    assert refused.value.message == "too many temporary files are being written; try again later"
    assert refused.value.retry_after
