"""Joins the PCM of a text's segments: their own silence gives way to the pauses between and around them.

PCM is signed 16-bit little-endian mono.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from balancer.audio.buffers import AudioBuffer
from worker.contract import SAMPLE_BYTES

SILENCE = 104
"""The largest sample that counts as silence: -50 dB of full scale."""
MARGIN_SECONDS = 0.02
"""Silence that is kept beside a sound, for its faint beginning and end."""
_NONE = np.empty(0, np.int16)


class Joiner:
    """Joins parts that come one after the other, each whole or in pieces: the result is the same."""

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._margin = round(MARGIN_SECONDS * sample_rate)
        self._begun = False
        """Whether there was a part."""
        self._keeps_start = False
        """Whether the silence at the beginning of the part stays."""
        self._sounds = False
        """Whether the part has not been all silence so far."""
        self._kept_back: NDArray[np.int16] = _NONE
        """The silence at the end of the part, of which it turns out later whether it is within it."""
        self._margin_left = 0
        """Samples of the margin that the next piece begins with."""

    def begin(self, pause: float) -> bytes:
        """PCM for the beginning of the next part: the pause before it, in seconds.

        Where no pause is before the first part, its beginning stays as it is.
        """
        self._keeps_start = not self._begun and not pause
        self._begun, self._sounds = True, False
        self._kept_back, self._margin_left = _NONE, 0
        return bytes(_pause_bytes(pause, self._sample_rate))

    def feed(self, pcm: bytes) -> bytes:
        """PCM for a piece of the part, which may be cut anywhere between two samples."""
        piece = np.frombuffer(pcm, "<i2")
        samples, before = np.concatenate([self._kept_back, piece]), len(self._kept_back)
        start, end = 0, self._margin_left
        if len(loud := _loud_samples(piece)):
            if not self._sounds and not self._keeps_start:
                start = max(0, before + int(loud[0]) - self._margin)
            end = before + int(loud[-1]) + 1 + self._margin
            self._sounds = True
        self._kept_back, self._margin_left = samples[end:].copy(), max(0, end - len(samples))
        return bytes(samples[start:end])

    def add(self, pcm: bytes, pause: float) -> bytes:
        """PCM for the whole next part; `pause` is the one before it, in seconds."""
        return self.begin(pause) + self.feed(pcm)

    def finish(self, pause: float) -> bytes:
        """The last PCM: the pause behind all parts, or the end of the last one, which then stays as it is."""
        return bytes(_pause_bytes(pause, self._sample_rate)) if pause else self._kept_back.tobytes()


def join(parts: Sequence[AudioBuffer], pauses: Sequence[float], sample_rate: int, output: IO[bytes]) -> None:
    """Write all parts, with the pauses in seconds before, between and behind them. Blocks.

    Raises OSError, ValueError.
    """
    _check_pauses(len(parts), pauses)
    joiner = Joiner(sample_rate)
    for part, pause in zip(parts, pauses[:-1], strict=True):
        output.write(joiner.add(bytes(part), pause))
    output.write(joiner.finish(pauses[-1]))


class _Stretch(NamedTuple):
    """Bytes of a file, or silence."""

    file: Path | None
    start: int
    size: int


class JoinedFiles(AudioBuffer):
    """The output of `join` for parts in files, which are read as this is read: nothing is held in memory."""

    in_memory = False

    def __init__(self, files: Sequence[Path], pauses: Sequence[float], sample_rate: int) -> None:
        """Reads each file once. Blocks. Raises OSError, ValueError."""
        super().__init__()
        _check_pauses(len(files), pauses)
        self._stretches: list[_Stretch] = []
        silences = [_Stretch(None, 0, _pause_bytes(pause, sample_rate)) for pause in pauses]
        for number, file in enumerate(files):
            samples = np.frombuffer(file.read_bytes(), "<i2")
            start, end = _kept(samples, number, pauses, sample_rate)
            self._stretches += silences[number], _Stretch(file, start * SAMPLE_BYTES, (end - start) * SAMPLE_BYTES)
        self._stretches.append(silences[-1])
        self._ends = list(accumulate(stretch.size for stretch in self._stretches))

    def __len__(self) -> int:
        """Size in bytes."""
        return self._ends[-1]

    def read(self, start: int, size: int) -> bytes:
        """See AudioBuffer. Raises OSError also where a file is shorter than it was."""
        end = min(start + size, len(self))
        index, found = bisect_right(self._ends, start), bytearray()
        while start + len(found) < end:
            stretch = self._stretches[index]
            skipped = start + len(found) - (self._ends[index] - stretch.size)
            found += _read(stretch, skipped, min(stretch.size - skipped, end - start - len(found)))
            index += 1
        return bytes(found)


def _read(stretch: _Stretch, skipped: int, size: int) -> bytes:
    if stretch.file is None:
        return bytes(size)
    with stretch.file.open("rb") as file:
        file.seek(stretch.start + skipped)
        content = file.read(size)
    if len(content) < size:
        raise OSError(f"{stretch.file} ends {size - len(content)} bytes too early")
    return content


def _check_pauses(parts: int, pauses: Sequence[float]) -> None:
    if len(pauses) != parts + 1:
        raise ValueError(f"{parts} parts have {parts + 1} pauses around them, not {len(pauses)}")


def _pause_bytes(pause: float, sample_rate: int) -> int:
    return round(pause * sample_rate) * SAMPLE_BYTES


def _kept(samples: NDArray[np.int16], number: int, pauses: Sequence[float], sample_rate: int) -> tuple[int, int]:
    """The first and the last-plus-one sample that are kept of a part, between the pauses of its number and the next."""
    start, end = _loud(samples, margin=round(MARGIN_SECONDS * sample_rate))
    if number == 0 and not pauses[0]:
        start = 0
    if number == len(pauses) - 2 and not pauses[-1]:
        end = len(samples)
    return start, end


def _loud(samples: NDArray[np.int16], *, margin: int) -> tuple[int, int]:
    """The first and the last-plus-one sample that is no silence, with the margin; (0, 0) where all is silence."""
    loud = _loud_samples(samples)
    if not len(loud):
        return 0, 0
    return max(0, int(loud[0]) - margin), min(len(samples), int(loud[-1]) + 1 + margin)


def _loud_samples(samples: NDArray[np.int16]) -> NDArray[np.intp]:
    """The places of the samples that are no silence."""
    return np.flatnonzero((samples > SILENCE) | (samples < -SILENCE))
