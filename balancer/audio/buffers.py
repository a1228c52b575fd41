"""Audio as the balancer passes it on: immutable bytes in memory or in an open file, read in pieces."""

from __future__ import annotations

import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator

PIECE_BYTES = 128 * 2**10
"""Audio is read and sent in pieces of this size: a client that does not read holds no more than a few of them."""


class AudioBuffer(ABC):
    """Immutable audio. It is held once, however many requests read it; it lives as long as it is referenced."""

    in_memory: bool
    """Whether reading never blocks."""

    def __init__(self) -> None:
        self.claims: list[object] = []
        """Objects that live as long as this buffer."""

    @abstractmethod
    def __len__(self) -> int:
        """Size in bytes."""

    @abstractmethod
    def read(self, start: int, size: int) -> bytes:
        """Up to `size` bytes from `start` on. Raises OSError."""

    def pieces(self, size: int = PIECE_BYTES) -> Iterator[bytes]:
        """All of it, in pieces of `size` bytes; the last one may be shorter. Raises OSError."""
        for start in range(0, len(self), size):
            yield self.read(start, min(size, len(self) - start))

    def __eq__(self, other: object) -> bool:
        """Whether the other one has the same bytes."""
        return isinstance(other, AudioBuffer) and len(self) == len(other) and bytes(self) == bytes(other)

    __hash__ = None  # type: ignore[assignment]

    def __bytes__(self) -> bytes:
        """All of it, in memory. Only for what is known to be small."""
        return self.read(0, len(self))


class MemoryBuffer(AudioBuffer):
    """Audio in memory."""

    in_memory = True

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = data

    def __len__(self) -> int:
        """Size in bytes."""
        return len(self._data)

    def read(self, start: int, size: int) -> bytes:
        """See AudioBuffer. The whole of it is not copied."""
        return self._data if size >= len(self._data) and not start else self._data[start : start + size]


class FileBuffer(AudioBuffer):
    """`size` bytes of an open file from `offset` on. It takes over the descriptor, and closes it at its end.

    The file may lose its name meanwhile: its content stays until the descriptor is closed.
    """

    in_memory = False

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._offset = offset
        self._size = size
        weakref.finalize(self, os.close, descriptor)

    def __len__(self) -> int:
        """Size in bytes."""
        return self._size

    def read(self, start: int, size: int) -> bytes:
        """See AudioBuffer. Raises OSError also where the file is shorter than it was."""
        wanted = max(0, min(size, self._size - start))
        data = os.pread(self._descriptor, wanted, self._offset + start)
        if len(data) < wanted:
            raise OSError(f"a file of audio ends {wanted - len(data)} bytes too early")
        return data


class PrefixedBuffer(AudioBuffer):
    """A header, then another buffer, which is not copied."""

    def __init__(self, prefix: bytes, rest: AudioBuffer) -> None:
        super().__init__()
        self._prefix = prefix
        self._rest = rest
        self._size = len(prefix) + len(rest)
        self.in_memory = rest.in_memory

    def __len__(self) -> int:
        """Size in bytes."""
        return self._size

    def read(self, start: int, size: int) -> bytes:
        """See AudioBuffer."""
        head = self._prefix[start : start + size]
        if len(head) == size:
            return head
        return head + self._rest.read(max(0, start - len(self._prefix)), size - len(head))
