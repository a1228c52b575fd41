"""What a request may do with kept audio, as its Cache-Control says (RFC 9111, section 5.2.1), and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class CacheUse:
    """Whether kept audio may answer the request, and whether its own may be kept and shared."""

    reads: bool = True
    writes: bool = True

    @classmethod
    def of(cls, cache_control: str | None) -> CacheUse:
        """`no-store` does neither, `no-cache` and `max-age=0` have fresh audio made, and kept."""
        directives = {part.strip().lower() for part in (cache_control or "").split(",")}
        if "no-store" in directives:
            return cls(reads=False, writes=False)
        return cls(reads=directives.isdisjoint({"no-cache", "max-age=0"}))


class CacheOutcome(StrEnum):
    """Where an answer's audio came from: the value of `X-Cache`."""

    HIT = "hit"
    MISS = "miss"
    COALESCED = "coalesced"
    """Another request, under way already, had it made."""
