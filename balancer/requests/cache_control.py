"""A request's use of the audio cache, by its Cache-Control header (RFC 9111, section 5.2.1), and the outcome."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class CacheUse:
    """Whether the request may be answered from the cache, and whether its audio may be cached and shared."""

    reads: bool = True
    writes: bool = True

    @classmethod
    def of(cls, cache_control: str | None) -> CacheUse:
        """Parse Cache-Control: `no-store` forbids both; `no-cache` and `max-age=0` forbid only to read."""
        if cache_control is None:
            return cls()
        directives = {part.strip().lower() for part in cache_control.split(",")}
        if "no-store" in directives:
            return cls(reads=False, writes=False)
        return cls(reads=directives.isdisjoint({"no-cache", "max-age=0"}))


class CacheOutcome(StrEnum):
    """The source of a response's audio, and the value of `X-Cache`."""

    HIT = "hit"
    MISS = "miss"
    COALESCED = "coalesced"
    """The audio was synthesized for another request that was already in progress."""
    PARTIAL = "partial"
    """A part of the text's segments was synthesized, the others were hits or coalesced."""

    @classmethod
    def of_segments(cls, outcomes: Collection[CacheOutcome]) -> CacheOutcome:
        """The outcome of a text by those of its segments."""
        found = set(outcomes)
        if len(found) == 1:
            return next(iter(found))
        return cls.PARTIAL if cls.MISS in found else cls.COALESCED
