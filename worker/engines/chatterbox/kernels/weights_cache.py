"""The weights cache: a file with the packed weights of a model, which all workers of a host map.

Packing reads all of a model's weights and makes a copy of them. The first worker of a host packs and writes the file;
those that map it share one copy of it, and start sooner. XNNPACK has a cache of the same name and purpose.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.lib.format
import numpy.typing as npt

from worker.engines.chatterbox.kernels.file_lock import locked

log = logging.getLogger(__name__)

Arrays = tuple[npt.NDArray[Any], ...]

npy: Any = numpy.lib.format
"""Its functions have no types."""

_ALIGNMENT = 64
"""Arrays start at multiples of a cache line's bytes: no vector that a kernel loads lies across two lines."""


class _Cache(Protocol):
    def packed(self, pack: Callable[[], Arrays], count: int) -> Arrays: ...


_current: ContextVar[_Cache | None] = ContextVar("weights_cache", default=None)


def packed(pack: Callable[[], Arrays], count: int) -> Arrays:
    """The `count` arrays that `pack` returns; in a `weights_cache` block, those of its file.

    A model's layers ask in the same order every time.
    """
    cache = _current.get()
    return pack() if cache is None else cache.packed(pack, count)


@contextmanager
def weights_cache(file: Path, key: str) -> Iterator[None]:
    """A block in which layers map the packed weights in `file`, or, if it does not have that key, pack and write them.

    The key stands for all that the weights follow from. While one process writes, others wait. Where the file cannot be
    read or written, layers pack weights for themselves, and the log says why.
    """
    with locked(file.with_suffix(".lock")) as failure:
        cache: _Reader | _Writer | None = _Reader.open(file, key)
        if cache is None and failure is not None:
            _warn(file, failure)
        elif cache is None:
            cache = _Writer.open(file, key)
        token = _current.set(cache)
        try:
            yield
            if isinstance(cache, _Writer):
                cache.finish()
        finally:
            _current.reset(token)
            if cache is not None:
                cache.close()


class _Reader:
    """Maps the arrays of a file, one after the other."""

    def __init__(self, file: Path, opened: BinaryIO) -> None:
        self._file, self._opened, self._damaged = file, opened, False

    @classmethod
    def open(cls, file: Path, key: str) -> _Reader | None:
        """A reader of the file; None if there is none with that key."""
        try:
            reader = cls(file, file.open("rb"))
        except OSError:
            return None
        with suppress(OSError, ValueError):
            if reader._next().tobytes().decode() == key:
                return reader
        reader.close()
        return None

    def packed(self, pack: Callable[[], Arrays], count: int) -> Arrays:
        if not self._damaged:
            try:
                return tuple(self._next() for _ in range(count))
            except (OSError, ValueError) as error:
                log.warning("%s is damaged and will be written again at the next start: %s", self._file, error)
                self._damaged = True
                with suppress(OSError):
                    self._file.unlink()
        return pack()

    def _next(self) -> npt.NDArray[Any]:
        self._opened.seek(-self._opened.tell() % _ALIGNMENT, os.SEEK_CUR)
        version = npy.read_magic(self._opened)
        if version != (1, 0):
            raise ValueError(f"format {version}")
        shape, _, dtype = npy.read_array_header_1_0(self._opened)
        array = _map(self._file, self._opened.tell(), shape, dtype)
        self._opened.seek(array.nbytes, os.SEEK_CUR)
        return array

    def close(self) -> None:
        self._opened.close()


class _Writer:
    """Writes arrays, one after the other, into a new file that replaces `file` when it is whole."""

    def __init__(self, file: Path, aside: Path, opened: BinaryIO) -> None:
        self._file, self._aside, self._opened, self._failed = file, aside, opened, False

    @classmethod
    def open(cls, file: Path, key: str) -> _Writer | None:
        """A writer; None, and a warning, if the file cannot be written."""
        aside = file.with_suffix(".new")
        try:
            writer = cls(file, aside, aside.open("wb"))
        except OSError as error:
            _warn(file, error)
            return None
        writer.packed(lambda: (np.frombuffer(key.encode(), np.uint8),), 1)
        return writer

    def packed(self, pack: Callable[[], Arrays], count: int) -> Arrays:
        arrays = pack()
        if self._failed:
            return arrays
        try:
            # Mapped by this process, too, so that it keeps no copy of its own.
            return tuple(self._append(array) for array in arrays)
        except OSError as error:
            self._fail(error)
            return arrays

    def _append(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        self._opened.write(bytes(-self._opened.tell() % _ALIGNMENT))
        npy.write_array(self._opened, array, version=(1, 0))
        self._opened.flush()
        return _map(self._aside, self._opened.tell() - array.nbytes, array.shape, array.dtype)

    def finish(self) -> None:
        """Put the file in its place, once it is on the disk."""
        if self._failed:
            return
        try:
            os.fsync(self._opened.fileno())
            self._aside.replace(self._file)
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self._failed = True
        _warn(self._file, error)

    def close(self) -> None:
        """Remove what is not whole."""
        with suppress(OSError):
            self._opened.close()
        with suppress(OSError):
            self._aside.unlink(missing_ok=True)


def _warn(file: Path, error: OSError) -> None:
    log.warning("%s cannot be written, so each worker packs weights and keeps a copy of its own: %s", file, error)


def _map(file: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """An array in a file, mapped. It may be written to, as Numba's types demand, but that would not reach the file."""
    return np.asarray(np.memmap(file, dtype, "c", offset, shape))
