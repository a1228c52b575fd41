"""Reads files that somebody else may have put there: regular files only, up to a size, and never waiting for a writer.

A FIFO, a device or a folder in the place of a file is refused, also behind a symbolic link.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MAX_CLIP_BYTES = 64 * 2**20
"""Maximum size of a reference clip: a minute of uncompressed sound of the best quality is 35 MB."""

MAX_DESCRIPTION_BYTES = 64 * 2**10
"""Maximum size of a voice.toml."""


def read_regular_file(path: Path, max_bytes: int) -> bytes:
    """The content of a file of at most `max_bytes`. Raises OSError, with EFBIG for a larger one."""
    check_regular_file(path, max_bytes)  # before it is opened: opening a device may already do something
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        _check(os.fstat(file.fileno()), path, max_bytes)
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise _too_large(path, max_bytes)
    return content


def check_regular_file(path: Path, max_bytes: int) -> os.stat_result:
    """The status of a file. Raises OSError if it is no regular file, or larger than `max_bytes`."""
    status = path.stat()
    _check(status, path, max_bytes)
    return status


def _check(status: os.stat_result, path: Path, max_bytes: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    if status.st_size > max_bytes:
        raise _too_large(path, max_bytes)


def _too_large(path: Path, max_bytes: int) -> OSError:
    size = f"{max_bytes >> 20} MiB" if max_bytes >= 2**20 else f"{max_bytes >> 10} KiB"
    return OSError(errno.EFBIG, f"Larger than {size}", str(path))
