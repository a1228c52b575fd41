"""Changes the tempo of PCM at the same pitch, by ffmpeg's `atempo`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import ceil, log2

import av
import av.filter

from balancer.audio.pcm import Frames, check, silence
from worker.contract import SAMPLE_BYTES

MIN_SPEED = 0.25
"""Lowest speed, as a multiple of the original tempo."""
MAX_SPEED = 4.0
"""Highest speed, as a multiple of the original tempo."""

_TEMPO_TAIL_SECONDS = 0.25
"""Silence appended to the input of the tempo filter. The filter drops up to two of its windows, each of up to 1/12 s,
at the end of its input: it must drop this silence, not the last syllable."""


def size_at(size: int, sample_rate: int, speed: float) -> int:
    """Bytes of PCM after the tempo change. Raises ValueError as `change_tempo`."""
    check(size, sample_rate)
    if not MIN_SPEED <= speed <= MAX_SPEED:  # this form also refuses NaN
        raise ValueError(f"speed must be from {MIN_SPEED} to {MAX_SPEED}, not {speed}")
    return round(size // SAMPLE_BYTES / speed) * SAMPLE_BYTES


def change_tempo(pieces: Iterable[bytes], sample_rate: int, speed: float) -> Iterator[bytes]:
    """PCM at the same pitch whose length is 1/`speed` of that of all `pieces`, to the sample, in pieces of any size.

    Blocks and is CPU-bound: call it off the event loop. Raises ValueError if the PCM ends within a sample, the rate is
    not positive, or the speed lies outside [MIN_SPEED, MAX_SPEED].
    """
    size_at(0, sample_rate, speed)
    if speed == 1:
        return iter(pieces)
    return _filtered(pieces, sample_rate, speed)


def _filtered(pieces: Iterable[bytes], sample_rate: int, speed: float) -> Iterator[bytes]:
    tempo = Tempo(sample_rate, speed)
    for piece in pieces:
        yield tempo.feed(piece)
    yield tempo.finish()


class Tempo:
    """A running tempo change. `speed` is not 1."""

    def __init__(self, sample_rate: int, speed: float) -> None:
        self._sample_rate = sample_rate
        self._speed = speed
        self._graph = _tempo_graph(sample_rate, speed)
        self._frames = Frames(sample_rate)
        self._taken = 0
        self._given = 0

    def feed(self, pcm: bytes) -> bytes:
        """The part of the result that is ready once `pcm` has been added to the input."""
        self._taken += len(pcm)
        return self._push(pcm)

    def finish(self) -> bytes:
        """The rest, as long as it takes for all to have the right length."""
        given = self._given
        tail = self._push(silence(ceil(_TEMPO_TAIL_SECONDS * self._sample_rate)))
        self._graph.push(None)  # flush
        rest = max(0, size_at(self._taken, self._sample_rate, self._speed) - given)
        return (tail + b"".join(_pulled(self._graph))).ljust(rest, b"\0")[:rest]

    def _push(self, pcm: bytes) -> bytes:
        for frame in self._frames.of(pcm):
            self._graph.push(frame)
        ready = b"".join(_pulled(self._graph))
        self._given += len(ready)
        return ready


def _tempo_graph(sample_rate: int, speed: float) -> av.filter.Graph:
    """A filter graph that changes the tempo by `speed`, in the fewest equal steps that lie within [1/2, 2].

    A single step beyond 2 would skip samples instead of blending them.
    """
    steps = ceil(abs(log2(speed)))
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_abuffer(sample_rate=sample_rate, format="s16", layout="mono"),
        *(graph.add("atempo", f"{speed ** (1 / steps):.9f}") for _ in range(steps)),
        graph.add("abuffersink"),
    ).configure()
    return graph


def _pulled(graph: av.filter.Graph) -> Iterator[bytes]:
    """PCM of the frames that are complete."""
    while True:
        try:
            yield graph.pull().to_ndarray().tobytes()
        except (BlockingIOError, EOFError):  # it needs more input; it is flushed
            return
