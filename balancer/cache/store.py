"""The protocol of a store of audio, and the checksums by which torn or altered entries are recognised."""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from typing import Protocol

from balancer.audio.buffers import AudioBuffer, FileBuffer, MemoryBuffer

_MAGIC = b"CHORUS1\n"
_HEADER = struct.Struct(">8s32sdd")
"""Magic, checksum, duration in seconds, creation in Unix time."""
HEADER_BYTES = _HEADER.size
HASHED_BYTES = 2**20
"""Audio is hashed in pieces of this size."""


@dataclass(frozen=True)
class CachedAudio:
    """Audio in a store: PCM, or an encoded file."""

    data: AudioBuffer
    seconds: float
    """Duration at speed 1."""
    created: float
    """Unix time."""


@dataclass(frozen=True)
class CacheStats:
    """The fill of a store. `bytes` and `limit` count the entries with their headers."""

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
    """Stores audio for a limited time within a limited size.

    Past the size, the caller whose audio takes most of it loses the entry that it used least recently, so that no
    caller pushes out the others' audio. Every method raises StoreError if the store cannot be used.
    """

    async def get(self, cache_key: str) -> CachedAudio | None:
        """The audio under a cache key; None if there is none, or if it is damaged."""

    async def put(self, cache_key: str, audio: CachedAudio, caller: str = "") -> None:
        """Store audio that was made for this caller, in place of any that the cache key has already."""

    async def stats(self) -> CacheStats:
        """The store's fill."""

    async def clear(self) -> int:
        """Delete every entry, and return how many there were."""

    async def aclose(self) -> None:
        """Close files and connections."""


def digest_of_caller(caller: str) -> str:
    """A short digest of a caller's name, which may be an address that a cache need not know."""
    return hashlib.blake2b(caller.encode(), digest_size=8).hexdigest()


def entry_header(cache_key: str, audio: CachedAudio) -> bytes:
    """The header of an entry, before its audio: it has a checksum over the cache key and all the rest."""
    checksum = _checksum(cache_key, audio.seconds, audio.created, audio.data)
    return _HEADER.pack(_MAGIC, checksum, audio.seconds, audio.created)


def pack_entry(cache_key: str, audio: CachedAudio) -> bytes:
    """The content of an entry, in memory."""
    return entry_header(cache_key, audio) + bytes(audio.data)


def unpack_entry(cache_key: str, content: bytes) -> CachedAudio:
    """The audio of an entry. Raises ChecksumError."""
    return _checked(cache_key, content[:HEADER_BYTES], MemoryBuffer(content[HEADER_BYTES:]))


def open_entry(cache_key: str, descriptor: int, size: int) -> CachedAudio:
    """The audio of an entry in a file of `size` bytes, which is read once and stays open.

    Takes over the descriptor. Raises ChecksumError, OSError.
    """
    data = FileBuffer(descriptor, HEADER_BYTES, max(0, size - HEADER_BYTES))
    return _checked(cache_key, os.pread(descriptor, HEADER_BYTES, 0), data)


def _checked(cache_key: str, header: bytes, data: AudioBuffer) -> CachedAudio:
    if len(header) < HEADER_BYTES:
        raise ChecksumError(f"{len(header)} bytes are too few for a header")
    magic, checksum, seconds, created = _HEADER.unpack(header)
    if magic != _MAGIC or checksum != _checksum(cache_key, seconds, created, data):
        raise ChecksumError("the checksum does not match")
    return CachedAudio(data, seconds, created)


def _checksum(cache_key: str, seconds: float, created: float, data: AudioBuffer) -> bytes:
    """BLAKE2b of 32 bytes."""
    checksum = hashlib.blake2b(digest_size=32)
    for piece in data.pieces(HASHED_BYTES):
        checksum.update(piece)
    checksum.update(struct.pack(">dd", seconds, created))
    checksum.update(cache_key.encode())
    return checksum.digest()
