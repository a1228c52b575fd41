"""The PCM of an utterance, handed on while it is made, whatever becomes of the attempts at it.

An attempt that is made again, or beside another, gives the same samples, of which what was handed on is skipped. One
that gives others has failed: nothing that a listener may have heard is ever replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class AudioDivergedError(Exception):
    """An attempt made other audio than what was handed on of an earlier one, or less."""


class EarlyAudio:
    """The PCM of one utterance, as far as any attempt has made it. `listener` is called with each new piece."""

    def __init__(self, listener: Callable[[bytes], None]) -> None:
        self._listeners = [listener]
        self._pieces: list[bytes] = []
        self.size = 0
        """Bytes that were handed on."""

    def add(self, pcm: bytes) -> None:
        """Hand on the next piece."""
        self._pieces.append(pcm)
        self.size += len(pcm)
        for listener in self._listeners:
            listener(pcm)

    def read(self, start: int, size: int) -> bytes:
        """A part of what was handed on."""
        return b"".join(self._pieces)[start : start + size]

    @contextmanager
    def followed_by(self, listener: Callable[[bytes], None]) -> Iterator[None]:
        """Within the block, another listener is called with each piece, and first with those that there are already."""
        for piece in self._pieces:
            listener(piece)
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)


class AttemptAudio:
    """The PCM of one attempt as it comes: what is new of it is handed on."""

    def __init__(self, early: EarlyAudio) -> None:
        self._early = early
        self._size = 0

    def add(self, pcm: bytes) -> None:
        """The next piece of the attempt. Raises AudioDivergedError."""
        known = min(len(pcm), max(0, self._early.size - self._size))
        if known and pcm[:known] != self._early.read(self._size, known):
            raise AudioDivergedError(f"its audio is other than what was handed on, near byte {self._size}")
        self._size += len(pcm)
        if known < len(pcm):
            self._early.add(pcm[known:])

    def finish(self) -> None:
        """The attempt has succeeded. Raises AudioDivergedError if it made less than was handed on."""
        if self._size < self._early.size:
            raise AudioDivergedError(f"its audio has {self._size} bytes, and {self._early.size} were handed on")
