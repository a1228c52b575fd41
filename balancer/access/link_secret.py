"""The secret of a host that signs links, if the settings have none: random, and kept in a file."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from balancer.settings.access import MIN_SECRET_BYTES
from voices.regular_files import read_regular_file

MAX_FILE_BYTES = 4096


def read_or_make_secret(file: Path) -> bytes:
    """The secret in a file, which is made if it does not exist. Two processes that do so at once have the same one.

    Blocks. Raises OSError, ValueError.
    """
    with suppress(FileNotFoundError):
        return _read(file)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new:
            new.write(secrets.token_hex(MIN_SECRET_BYTES).encode() + b"\n")
            new.flush()
            os.fsync(new.fileno())
        with suppress(FileExistsError):  # another process was quicker
            file.hardlink_to(temporary)
    finally:
        temporary.unlink(missing_ok=True)
    return _read(file)


def _read(file: Path) -> bytes:
    secret = read_regular_file(file, MAX_FILE_BYTES).strip()
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"{file} has fewer than {MIN_SECRET_BYTES} bytes; delete it")
    return secret
