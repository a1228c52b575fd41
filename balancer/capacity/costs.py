"""What a rate of requests amounts to, and what it costs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

HIT_SHARES = (0.25, 0.5, 0.75, 0.9)
"""Shares of requests from the cache that reports show."""
SAFETY_SHARE = 0.8
"""Of its knee, that a host is planned to carry: load is never even, and one host may be missing."""


@dataclass(frozen=True)
class Yield:
    """The answers of one or several hosts at a rate of requests."""

    rate: float
    """Requests per second."""
    audio_seconds: float
    """Of a request, on average."""
    characters: float
    """Of a request, on average."""

    @property
    def requests_per_minute(self) -> float:
        """Requests answered in a minute."""
        return 60 * self.rate

    @property
    def audio_seconds_per_minute(self) -> float:
        """Seconds of audio made in a minute."""
        return 60 * self.rate * self.audio_seconds

    def dollars_per_million_characters(self, price_per_hour: float) -> float:
        """The price of a million characters, all hosts together costing so much an hour."""
        return price_per_hour / (3600 * self.rate * self.characters) * 1e6

    def dollars_per_audio_hour(self, price_per_hour: float) -> float:
        """The price of an hour of audio, all hosts together costing so much an hour."""
        return price_per_hour / (self.rate * self.audio_seconds)

    def hosts_for(self, requests_per_minute: float) -> int:
        """Hosts for a load, if this is the yield of one, loaded to SAFETY_SHARE of it."""
        return max(1, ceil(requests_per_minute / (SAFETY_SHARE * self.requests_per_minute)))

    def with_cache(self, share: float, cached_rate: float) -> float:
        """Requests per second, if that share of them comes from the cache, at most `cached_rate` a second."""
        return 1 / ((1 - share) / self.rate + share / cached_rate)
