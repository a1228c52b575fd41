"""API keys and the permissions of each, and the file that holds their digests."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from balancer.scheduling.priority import Priority
from balancer.settings.access import DIGEST_PATTERN, IDENTITY_PREFIX
from voices.regular_files import read_regular_file

MAX_FILE_BYTES = 16 * 2**20
"""Maximum size of the file: some 50,000 keys."""

LOCK_SECONDS = 10.0
"""Time to wait for another process that changes the file."""
LOCK_POLL_SECONDS = 0.02

IDENTITY_DIGITS = 32
"""Hexadecimal digits of a key's digest that tell it from every other key."""

Count = Annotated[int, Field(ge=1)]


class KeysFileError(ValueError):
    """The file of API keys cannot be used; the message says why."""


class Role(StrEnum):
    """The permissions of a key."""

    CLIENT = "client"
    """Use the server: speech, jobs, lists, health and metrics."""
    OPERATOR = "operator"
    """Run it, too: add and remove voices, drain and resume the host."""


class ApiKey(BaseModel):
    """One API key and the permissions of its owner. A limit of None means the server's default limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    digest: Annotated[str, Field(pattern=DIGEST_PATTERN)]
    """SHA-256 of the key, in hexadecimal. Keys are long and random, so a slow hash would add no protection."""
    created: datetime | None = None
    role: Role = Role.CLIENT
    priority: Priority = Priority.INTERACTIVE
    """The highest priority that its requests get."""
    requests_per_minute: Count | None = None
    characters_per_minute: Count | None = None
    characters_per_day: Count | None = None
    interval_seconds: Count | None = None
    """Minimum time between two requests."""
    concurrency: Count | None = None
    """Maximum number of concurrent requests."""
    voices: tuple[str, ...] | None = None
    """Names of the voices that its requests may use; None: every voice."""

    @property
    def identity(self) -> str:
        """The owner of jobs, limits and idempotency keys; a later key with the same name has another."""
        return f"{IDENTITY_PREFIX}{self.digest[:IDENTITY_DIGITS]}"


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: tuple[ApiKey, ...] = ()

    @field_validator("keys")
    @classmethod
    def _names_differ(cls, keys: tuple[ApiKey, ...]) -> tuple[ApiKey, ...]:
        names = [key.name for key in keys]
        if len(set(names)) < len(names):
            raise ValueError("two API keys have the same name")
        return keys


def new_key() -> str:
    """A new API key of 256 random bits."""
    return f"chorus-{secrets.token_hex(32)}"


def digest_of(key: str) -> str:
    """The SHA-256 digest of an API key, in hexadecimal."""
    return sha256(key.encode()).hexdigest()


def read_keys(file: Path) -> tuple[ApiKey, ...]:
    """The API keys of a file; none if the file does not exist. Raises KeysFileError."""
    try:
        return _File.model_validate_json(read_regular_file(file, MAX_FILE_BYTES)).keys
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise KeysFileError(f"the API keys in {file} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "the file"
        raise KeysFileError(f"the API keys in {file} cannot be read: {where}: {fault['msg']}") from error


def update_keys(file: Path, change: Callable[[tuple[ApiKey, ...]], Sequence[ApiKey]]) -> None:
    """Replace the keys of the file by what `change` makes of them. Processes that do so at once take turns.

    Raises KeysFileError, OSError, and the exceptions of `change`, upon which the file stays as it is.
    """
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(file):
        write_keys(file, change(read_keys(file)))


def write_keys(file: Path, keys: Sequence[ApiKey]) -> None:
    """Replace the file atomically; only its owner may read it. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    # Without defaults: a version that does not know of a field reads the file, as long as no key makes use of it.
    content = _File(keys=tuple(keys)).model_dump_json(indent=2, exclude_defaults=True)
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as new:
            new.write(content + "\n")
            new.flush()
            os.fsync(new.fileno())  # a host that loses power must not find an empty file in its place
        temporary.replace(file)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold the lock of the file, which is a file of its own: the keys' file is replaced. Raises KeysFileError."""
    lock = file.with_name(f".{file.name}.lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW, 0o600)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise KeysFileError(f"another process has been changing {file} for {LOCK_SECONDS:g} s") from error
                time.sleep(LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)
