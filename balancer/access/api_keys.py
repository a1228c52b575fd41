"""API keys: who may ask, and for how much. Only digests are kept, in a file that is read again when it changes."""

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
from balancer.settings_groups import DIGEST_PATTERN, DIGEST_PREFIX

log = logging.getLogger(__name__)

Count = Annotated[int, Field(ge=1)]


class KeysFileError(ValueError):
    """The file of keys cannot be used; the message says why."""


class ApiKey(BaseModel):
    """One key, and what its owner may do. What is None has the server's own limit, or none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    digest: Annotated[str, Field(pattern=DIGEST_PATTERN)]
    """SHA-256 of the key, in hex. Keys are random and long: a slow hash would protect them no better."""
    created: datetime | None = None
    priority: Priority = Priority.INTERACTIVE
    """The highest that its requests get."""
    requests_per_minute: Count | None = None
    characters_per_minute: Count | None = None
    characters_per_day: Count | None = None
    interval_seconds: Count | None = None
    """Least time between two requests."""
    concurrency: Count | None = None
    """Most requests under way at once."""
    voices: tuple[str, ...] | None = None
    """Names of the voices that it may ask for; None: any."""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: tuple[ApiKey, ...] = ()

    @field_validator("keys")
    @classmethod
    def _names_differ(cls, keys: tuple[ApiKey, ...]) -> tuple[ApiKey, ...]:
        names = [key.name for key in keys]
        if len(set(names)) < len(names):
            raise ValueError("two keys have one name")
        return keys


def new_key() -> str:
    """A key of 256 random bits."""
    return f"chorus-{secrets.token_hex(32)}"


def digest_of(key: str) -> str:
    """What is kept of a key."""
    return sha256(key.encode()).hexdigest()


def read_keys(file: Path) -> tuple[ApiKey, ...]:
    """The keys of a file; none where there is no file. Raises KeysFileError."""
    try:
        return _File.model_validate_json(file.read_bytes()).keys
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise KeysFileError(f"the keys in {file} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "the file"
        raise KeysFileError(f"the keys in {file} cannot be read: {where}: {fault['msg']}") from error


def write_keys(file: Path, keys: Sequence[ApiKey]) -> None:
    """Replace the file in one step; only its owner may read it. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    content = _File(keys=tuple(keys)).model_dump_json(indent=2, exclude_none=True)
    try:
        aside.touch(mode=0o600)
        aside.write_text(content + "\n", encoding="utf-8")
        aside.replace(file)
    except BaseException:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


class KeyRing:
    """The keys in force: those of the environment, and those of a file as it is now."""

    def __init__(self, fixed: Iterable[str] = (), file: Path | None = None) -> None:
        """`fixed` holds keys, or digests behind `sha256:`. Raises KeysFileError."""
        digests = [
            key.removeprefix(DIGEST_PREFIX) if key.startswith(DIGEST_PREFIX) else digest_of(key) for key in fixed
        ]
        self._fixed = tuple(ApiKey(name=f"key-{digest[:8]}", digest=digest) for digest in digests)
        self._file = file
        self._seen = self._look()
        self._filed = read_keys(file) if file is not None else ()
        self._guards = bool(self._fixed) or self._seen is not None

    @property
    def guards(self) -> bool:
        """Whether a key is needed. Where there once was a file, it stays so, though every key in it be revoked."""
        self._refresh()
        return self._guards

    def find(self, offered: str) -> ApiKey | None:
        """The key that was offered, if it is one."""
        self._refresh()
        digest = digest_of(offered)
        found = None
        # Every key is compared, each in constant time: the time taken tells nothing of them.
        for key in (*self._fixed, *self._filed):
            if hmac.compare_digest(digest, key.digest):
                found = key
        return found

    def _refresh(self) -> None:
        """Read the file again if it is another. One that cannot be read changes nothing."""
        seen = self._look()
        if seen == self._seen or self._file is None:
            return
        self._seen = seen
        try:
            self._filed = read_keys(self._file)
        except KeysFileError as error:
            log.error("the keys stay as they were: %s", error)
            return
        self._guards = self._guards or seen is not None
        log.info("%d keys in %s", len(self._filed), self._file)

    def _look(self) -> tuple[int, int, int] | None:
        if self._file is None:
            return None
        try:
            status = self._file.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino
