"""Segments are joined with pauses of the length that was asked for."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.audio.buffers import MemoryBuffer
from balancer.audio.joining import MARGIN_SECONDS, JoinedFiles, Joiner, join

RATE = 1000
MARGIN = round(MARGIN_SECONDS * RATE)


def pcm(*pieces: tuple[int, int]) -> MemoryBuffer:
    """Pieces of (samples, level)."""
    return MemoryBuffer(np.concatenate([np.full(count, level, "<i2") for count, level in pieces]).tobytes())


def joined(*parts: MemoryBuffer, pauses: list[float], before: float = 0.0, behind: float = 0.0) -> list[int]:
    output = io.BytesIO()
    join(parts, [before, *pauses, behind], RATE, output)
    return [int(sample) for sample in np.frombuffer(output.getvalue(), "<i2")]


def test_silence_at_a_join_gives_way_to_the_pause() -> None:
    first = pcm((100, 0), (50, 5000), (300, 20))
    second = pcm((200, -30), (40, -5000), (70, 0))
    found = joined(first, second, pauses=[0.25])
    kept = [*([0] * 100), *([5000] * 50), *([20] * MARGIN)]
    assert found == [*kept, *([0] * 250), *([-30] * MARGIN), *([-5000] * 40), *([0] * 70)]


def test_less_silence_than_the_margin_is_kept() -> None:
    assert joined(pcm((5, 9000), (3, 0)), pcm((2, 0), (5, 9000)), pauses=[0.0]) == [
        *([9000] * 5),
        *([0] * 5),
        *([9000] * 5),
    ]


def test_the_loudest_negative_sample_is_no_silence() -> None:
    assert joined(pcm((1, -32768)), pcm((1, -32768)), pauses=[0.0]) == [-32768, -32768]


def test_a_silent_part_in_between_leaves_its_pauses() -> None:
    found = joined(pcm((5, 9000)), pcm((500, 0)), pcm((5, 9000)), pauses=[0.1, 0.2])
    assert found == [*([9000] * 5), *([0] * 300), *([9000] * 5)]


def test_an_empty_part_is_silent() -> None:
    assert joined(pcm((2, 9000)), MemoryBuffer(b""), pauses=[0.01]) == [9000, 9000, *([0] * 10)]


def test_parts_that_come_one_by_one_are_joined_alike() -> None:
    parts = [pcm((100, 0), (5, 9000), (100, 0)), pcm((50, 0)), pcm((3, 0), (5, -9000), (200, 0))]
    joiner = Joiner(RATE)
    pieces = [joiner.add(bytes(part), pause) for part, pause in zip(parts, (0.0, 0.1, 0.2), strict=True)]
    output = io.BytesIO()
    join(parts, [0.0, 0.1, 0.2, 0.0], RATE, output)
    assert b"".join(pieces) + joiner.finish(0.0) == output.getvalue()


@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 60), st.sampled_from([0, 20, 9000])), max_size=4), min_size=1, max_size=3
    ),
    st.sampled_from([0.0, 0.1]),
    st.integers(1, 90),
)
def test_parts_in_pieces_are_joined_alike(parts: list[list[tuple[int, int]]], pause: float, size: int) -> None:
    whole, pieces = Joiner(RATE), Joiner(RATE)
    for part in parts:
        samples = bytes(pcm((0, 0), *part))
        found = pieces.begin(pause)
        for start in range(0, len(samples), 2 * size):
            found += pieces.feed(samples[start : start + 2 * size])
        assert found == whole.add(samples, pause)
    assert pieces.finish(0.0) == whole.finish(0.0)


def test_a_sound_is_handed_on_at_once_and_silence_once_it_is_within_the_part() -> None:
    joiner = Joiner(RATE)
    assert len(joiner.begin(0.0) + joiner.feed(bytes(pcm((50, 9000), (100, 0))))) == 2 * (50 + MARGIN)
    assert len(joiner.feed(bytes(pcm((100, 0))))) == 0
    assert len(joiner.feed(bytes(pcm((10, 9000))))) == 2 * (200 - MARGIN + 10)


def test_the_pauses_must_fit() -> None:
    with pytest.raises(ValueError, match="2 parts have 3 pauses around them, not 4"):
        joined(pcm((1, 1)), pcm((1, 1)), pauses=[0.1, 0.1])


def test_silence_before_and_behind_all() -> None:
    part = pcm((100, 0), (5, 9000), (100, 0))
    silence = [0] * (100 + MARGIN)
    assert joined(part, pauses=[], before=0.1, behind=0.1) == [*silence, *([9000] * 5), *silence]
    assert joined(part, pauses=[], before=0.1) == [*silence, *([9000] * 5), *([0] * 100)]
    assert joined(part, pauses=[], behind=0.1) == [*([0] * 100), *([9000] * 5), *silence]


@pytest.mark.parametrize(("before", "behind"), [(0.0, 0.0), (0.3, 0.2)])
def test_joined_files_are_what_join_writes(tmp_path: Path, before: float, behind: float) -> None:
    parts = [
        pcm((100, 0), (50, 5000), (300, 20)),
        pcm((500, 0)),
        pcm((200, -30), (40, -5000), (70, 0)),
        pcm((5, 9000), (90, 0)),
    ]
    files = [tmp_path / str(number) for number in range(len(parts))]
    for file, part in zip(files, parts, strict=True):
        file.write_bytes(bytes(part))
    pauses = [before, 0.25, 0.0, 0.1, behind]
    output = io.BytesIO()
    join(parts, pauses, RATE, output)
    whole = output.getvalue()
    found = JoinedFiles(files, pauses, RATE)
    assert bytes(found) == whole
    for size in (1, 7, 512, 100_000):
        assert b"".join(found.pieces(size)) == whole
    assert found.read(len(whole) - 3, 100) == whole[-3:]
    assert found.read(len(whole), 100) == b""


def test_a_joined_file_that_has_become_shorter_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "one"
    file.write_bytes(bytes(pcm((10, 9000))))
    found = JoinedFiles([file], [0.0, 0.0], RATE)
    file.write_bytes(b"")
    with pytest.raises(OSError, match="ends 20 bytes too early"):
        bytes(found)
