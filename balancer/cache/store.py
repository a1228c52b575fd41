"""The protocol of a store of audio, and the checksums by which torn or altered entries are recognised."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Protocol

_MAGIC = b"CHORUS1\n"
_HEADER = struct.Struct(">8s32sdd")
"""Magic, checksum, duration in seconds, creation in Unix time."""


@dataclass(frozen=True)
class CachedAudio:
    """Audio in a store: PCM, or an encoded file."""

    data: bytes
    seconds: float
    """Duration at speed 1."""
    created: float
    """Unix time."""


@dataclass(frozen=True)
class CacheStats:
    """How full a store is. `bytes` and `limit` count the entries with their headers."""

    entries: int
    bytes: int
    limit: int
    where: str
    """The store's folder or address."""


class StoreError(Exception):
    """The store cannot be used at the moment; the message says which store, and why."""


class ChecksumError(ValueError):
    """The content is not what was stored under this cache key: it is torn, altered, or belongs to another key."""


class AudioStore(Protocol):
    """Stores audio for a limited time within a limited size, and evicts the least recently used entries first.

    Every method raises StoreError if the store cannot be used.
    """

    async def get(self, cache_key: str) -> CachedAudio | None:
        """The audio under a cache key; None if there is none, or if it is damaged."""

    async def put(self, cache_key: str, audio: CachedAudio) -> None:
        """Store audio, in place of any that the cache key has already."""

    async def stats(self) -> CacheStats:
        """How full the store is."""

    async def clear(self) -> int:
        """Delete every entry, and return how many there were."""

    async def aclose(self) -> None:
        """Close files and connections."""


def pack_entry(cache_key: str, audio: CachedAudio) -> bytes:
    """The content of an entry: a header with a checksum over the cache key and all the rest, then the audio."""
    checksum = _checksum(cache_key, audio.seconds, audio.created, audio.data)
    return _HEADER.pack(_MAGIC, checksum, audio.seconds, audio.created) + audio.data


def unpack_entry(cache_key: str, content: bytes) -> CachedAudio:
    """The audio of an entry. Raises ChecksumError."""
    if len(content) < _HEADER.size:
        raise ChecksumError(f"{len(content)} bytes are too few for a header")
    magic, checksum, seconds, created = _HEADER.unpack_from(content)
    data = content[_HEADER.size :]
    if magic != _MAGIC or checksum != _checksum(cache_key, seconds, created, data):
        raise ChecksumError("the checksum does not match")
    return CachedAudio(data, seconds, created)


def _checksum(cache_key: str, seconds: float, created: float, data: bytes) -> bytes:
    """BLAKE2b of 32 bytes."""
    checksum = hashlib.blake2b(data, digest_size=32)
    checksum.update(struct.pack(">dd", seconds, created))
    checksum.update(cache_key.encode())
    return checksum.digest()
