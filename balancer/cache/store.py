"""The protocol of a store of audio, and the checksum that keeps torn or altered audio from being served."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Protocol

_MAGIC = b"CHORUS1\n"
_HEAD = struct.Struct(">8s32sdd")


@dataclass(frozen=True)
class CachedAudio:
    """Audio in a store: a sound's PCM, or a finished file."""

    data: bytes
    seconds: float
    """How long the sound lasts, at speed 1."""
    created: float
    """Unix time."""


@dataclass(frozen=True)
class Stats:
    """How full a store is."""

    entries: int
    bytes: int
    limit: int
    where: str


class StoreError(Exception):
    """The store cannot be used just now; the message says which and why."""


class ChecksumError(ValueError):
    """These bytes are not what was kept under that key: torn, altered or of another key."""


class AudioStore(Protocol):
    """Keeps audio for a while, within a size; what was used least lately goes first. Every method raises StoreError."""

    async def get(self, key: str) -> CachedAudio | None:
        """What is kept under the key; None where there is nothing, or nothing whole."""

    async def put(self, key: str, kept: CachedAudio) -> None:
        """Keep it, instead of what was kept under the key."""

    async def stats(self) -> Stats:
        """How full it is."""

    async def clear(self) -> int:
        """Drop everything; the number of entries that were dropped."""

    async def aclose(self) -> None:
        """Let go of files and connections."""


def pack_entry(key: str, kept: CachedAudio) -> bytes:
    """What a store writes: a header with a digest over all the rest and the key, then the audio."""
    digest = _checksum(key, kept.seconds, kept.created, kept.data)
    return _HEAD.pack(_MAGIC, digest, kept.seconds, kept.created) + kept.data


def unpack_entry(key: str, content: bytes) -> CachedAudio:
    """What was sealed. Raises ChecksumError."""
    if len(content) < _HEAD.size:
        raise ChecksumError(f"{len(content)} bytes are no kept audio")
    magic, digest, seconds, created = _HEAD.unpack_from(content)
    data = content[_HEAD.size :]
    if magic != _MAGIC or digest != _checksum(key, seconds, created, data):
        raise ChecksumError("the digest does not fit")
    return CachedAudio(data, seconds, created)


def _checksum(key: str, seconds: float, created: float, data: bytes) -> bytes:
    digest = hashlib.blake2b(data, digest_size=32)
    digest.update(struct.pack(">dd", seconds, created))
    digest.update(key.encode())
    return digest.digest()
