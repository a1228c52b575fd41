"""Integrity of a checkpoint's files: a quick check of the structure, or a full check of the content.

Called by `worker.checkpoints.catalogue`, which knows the files and writes the message for the operator.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_CHUNK = 2**20
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_MAX_HEADER_BYTES = 100_000_000
"""Bytes of a header that readers of safetensors accept at most."""
_SHA256 = re.compile("[0-9a-f]{64}")
_GIT_SHA1 = re.compile("[0-9a-f]{40}")
_BAD_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ValueError,  # offsets before the start of the file, names that are not text
    RuntimeError,  # unknown methods and versions, encryption
    EOFError,
    OverflowError,
)
"""Errors that zipfile raises for bytes that are not an archive."""

Advance = Callable[[int], object]
"""Called with the number of bytes just read."""


class DamagedFileError(Exception):
    """A file has not the content that its name promises, or cannot be read; the message says what is wrong."""


def check_structure(path: Path) -> None:
    """Check a file's header or directory, not its content: milliseconds, whatever its size.

    Raises FileNotFoundError, or DamagedFileError.
    """
    with _open(path) as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise DamagedFileError("is a Git LFS pointer instead of the file (in a git clone: git lfs pull)")
        size = file.seek(0, 2)
        file.seek(0)
        if size == 0:
            raise DamagedFileError("is empty")
        match path.suffix:
            case ".safetensors":
                _check_safetensors(file, size)
            case ".pt":
                _check_zip(file)
            case ".json":
                _check_json(file)


def check_tensors(path: Path, names: Iterable[str]) -> None:
    """Check that the header of a complete safetensors file has tensors of these names.

    Raises FileNotFoundError, or DamagedFileError.
    """
    with _open(path) as file:
        header = _header(file)
    if lacking := [name for name in names if name not in header]:
        raise DamagedFileError(f"has no tensor {lacking[0]}: it is another model's")


def check_content(path: Path, advance: Advance) -> str:
    """Read a file to its end and say what it was compared with.

    In the hub's cache that is the checksum its blob is named after. Elsewhere there is none: a `.pt` has those of
    its zip entries, other files only their structure. Raises FileNotFoundError, or DamagedFileError.
    """
    check_structure(path)
    expected = path.readlink().name if path.is_symlink() else ""
    with _open(path) as file:
        if _SHA256.fullmatch(expected):
            _compare(_digest(file, hashlib.sha256(), advance), expected, "SHA-256")
            return "the hub's SHA-256"
        if _GIT_SHA1.fullmatch(expected):
            digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
            _compare(_digest(file, digest, advance), expected, "git checksum")
            return "the hub's git checksum"
        if path.suffix == ".pt":
            _check_entries(file, advance)
            return "its own checksums"
        for chunk in _chunks(file):
            advance(len(chunk))
        return "its structure only"


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    """Open a file; an OSError, now or while it is read, becomes a DamagedFileError."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DamagedFileError("is not a regular file")
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedFileError(f"cannot be read: {error.strerror or error}") from error


def _check_safetensors(file: IO[bytes], size: int) -> None:
    header = _header(file)
    try:
        ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise DamagedFileError("has no readable safetensors header") from error
    promised = file.tell() + max(ends, default=0)
    if size != promised:
        raise DamagedFileError(f"has {size:,} bytes where its header promises {promised:,}")


def _header(file: IO[bytes]) -> dict[str, Any]:
    """The header of a safetensors file, by tensor name; afterwards the file position is the first byte of data."""
    size = file.seek(0, 2)
    file.seek(0)
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= _MAX_HEADER_BYTES:
        raise DamagedFileError("does not begin like a safetensors file")
    if 8 + length > size:
        raise DamagedFileError(f"is cut short within its header, at {size:,} bytes")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise DamagedFileError("has no readable safetensors header") from error
    if not isinstance(header, dict):
        raise DamagedFileError("has no readable safetensors header")
    return header


def _check_zip(file: IO[bytes]) -> None:
    try:
        zipfile.ZipFile(file).close()
    except _BAD_ZIP as error:
        raise DamagedFileError("is not a readable .pt file: it has no zip directory, or is cut short") from error


def _check_entries(file: IO[bytes], advance: Advance) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                with archive.open(entry) as content:
                    for chunk in _chunks(content):
                        advance(len(chunk))
    except _BAD_ZIP as error:
        raise DamagedFileError(f"has a damaged entry: {error}") from error


def _check_json(file: IO[bytes]) -> None:
    try:
        json.loads(file.read())
    except (ValueError, RecursionError) as error:
        raise DamagedFileError("is not readable JSON") from error


def _digest(file: IO[bytes], digest: hashlib._Hash, advance: Advance) -> str:
    for chunk in _chunks(file):
        digest.update(chunk)
        advance(len(chunk))
    return digest.hexdigest()


def _compare(found: str, expected: str, kind: str) -> None:
    if found != expected:
        raise DamagedFileError(f"has the {kind} {found[:12]}… where the hub's is {expected[:12]}…")


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk
