"""Cache of voice prefixes: T3's keys and values for what precedes every text of a voice."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from worker.engines.chatterbox.t3.decoder import Decoder, VoicePrefix

MAX_PREFIX_POSITIONS = 3072
"""Cached positions of all voices, at most: 8 voices of Turbo (376 positions each, 74 MB), or of the Original (34 each,
and those of the longest text, up to some 300, without it)."""


@dataclass(frozen=True)
class PrefixKey:
    """The inputs that determine a voice prefix."""

    voice: str
    exaggeration: float | None
    """None for models without this parameter."""


class VoicePrefixCache:
    """Prefixes of the most recently used voices, up to MAX_PREFIX_POSITIONS positions, but always the latest one.

    `t3_conditionals` returns upstream's `T3Cond` for a key, which `decoder` embeds.
    """

    def __init__(self, decoder: Decoder, t3_conditionals: Callable[[PrefixKey], Any]) -> None:
        self._decoder = decoder
        self._t3_conditionals = t3_conditionals
        self._prefixes: OrderedDict[PrefixKey, VoicePrefix] = OrderedDict()

    @property
    def entries(self) -> dict[PrefixKey, VoicePrefix]:
        """A copy of the cache's content, the least recently used prefix first."""
        return dict(self._prefixes)

    def get(self, key: PrefixKey) -> VoicePrefix:
        """The prefix for `key`. A new one is not computed yet: the decoder does that with the first utterance."""
        if key not in self._prefixes:
            self._prefixes[key] = self._embed(key)
        self._prefixes.move_to_end(key)
        while len(self._prefixes) > 1 and self._positions > MAX_PREFIX_POSITIONS:
            self._prefixes.popitem(last=False)
        return self._prefixes[key]

    def precompute(self, key: PrefixKey) -> None:
        """Compute and cache the prefix for `key`, if the cache has room for it. The decoder must be idle."""
        prefix = self._embed(key)
        if self._positions + prefix.count <= MAX_PREFIX_POSITIONS:
            self._decoder.compute_prefix(prefix)
            self._prefixes[key] = prefix

    def discard(self, voice: str) -> None:
        """Remove every prefix of a voice."""
        for key in [key for key in self._prefixes if key.voice == voice]:
            del self._prefixes[key]

    @property
    def _positions(self) -> int:
        return sum(prefix.kept for prefix in self._prefixes.values())

    def _embed(self, key: PrefixKey) -> VoicePrefix:
        return self._decoder.embed_voice(self._t3_conditionals(key))
