"""API keys and the permissions of each. A file holds their digests only; it is read again whenever it changes."""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from balancer.scheduling.priority import Priority
from balancer.settings_groups import DIGEST_PATTERN, DIGEST_PREFIX, IDENTITY_PREFIX

log = logging.getLogger(__name__)

IDENTITY_DIGITS = 32
"""Hexadecimal digits of a key's digest that tell it from every other key."""

Count = Annotated[int, Field(ge=1)]


class KeysFileError(ValueError):
    """The file of API keys cannot be used; the message says why."""


class ApiKey(BaseModel):
    """One API key and the permissions of its owner. A limit of None means the server's default limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    digest: Annotated[str, Field(pattern=DIGEST_PATTERN)]
    """SHA-256 of the key, in hexadecimal. Keys are long and random, so a slow hash would add no protection."""
    created: datetime | None = None
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
        """Whose jobs, limits and idempotency keys these are: the key's, not those of a later key with its name."""
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
        return _File.model_validate_json(file.read_bytes()).keys
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise KeysFileError(f"the API keys in {file} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "the file"
        raise KeysFileError(f"the API keys in {file} cannot be read: {where}: {fault['msg']}") from error


def write_keys(file: Path, keys: Sequence[ApiKey]) -> None:
    """Replace the file atomically; only its owner may read it. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    content = _File(keys=tuple(keys)).model_dump_json(indent=2, exclude_none=True)
    try:
        temporary.touch(mode=0o600)
        temporary.write_text(content + "\n", encoding="utf-8")
        temporary.replace(file)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


class KeyRing:
    """The valid API keys: those of the environment and those of a file, which is read again when it changes."""

    def __init__(self, fixed: Iterable[str] = (), file: Path | None = None) -> None:
        """`fixed` holds API keys, or their digests prefixed with `sha256:`. Raises KeysFileError."""
        digests = [
            key.removeprefix(DIGEST_PREFIX) if key.startswith(DIGEST_PREFIX) else digest_of(key) for key in fixed
        ]
        self._fixed = tuple(ApiKey(name=f"key-{digest[:8]}", digest=digest) for digest in digests)
        self._file = file
        self._file_version = self._stat()
        self._from_file = read_keys(file) if file is not None else ()
        self._key_required = bool(self._fixed) or self._file_version is not None

    @property
    def key_required(self) -> bool:
        """Whether requests need an API key. Once a file has existed it stays true, even if its last key is revoked."""
        self._refresh()
        return self._key_required

    def find(self, offered: str) -> ApiKey | None:
        """The valid API key that equals `offered`; None if there is none."""
        self._refresh()
        digest = digest_of(offered)
        found = None
        # All keys are compared, each in constant time, so that the time taken reveals nothing about them.
        for key in (*self._fixed, *self._from_file):
            if hmac.compare_digest(digest, key.digest):
                found = key
        return found

    def _refresh(self) -> None:
        """Read the file again if it has changed. If it cannot be read, the previous keys stay valid."""
        version = self._stat()
        if version == self._file_version or self._file is None:
            return
        self._file_version = version
        try:
            self._from_file = read_keys(self._file)
        except KeysFileError as error:
            log.error("API keys not reloaded, the previous keys stay valid: %s", error)
            return
        self._key_required = self._key_required or version is not None
        log.info("loaded %d API keys from %s", len(self._from_file), self._file)

    def _stat(self) -> tuple[int, int, int] | None:
        """Modification time, size and inode of the file, which differ when it has changed; None if there is no file."""
        if self._file is None:
            return None
        try:
            status = self._file.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino
