"""The cache of voice prefixes: what it embeds, computes, evicts and discards; the decoder is a fake."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.stock import BUILT_IN  # noqa: F401 - loads the engines' libraries, which warn when they load
from worker.engines.chatterbox.t3 import voice_prefix
from worker.engines.chatterbox.t3.voice_prefix import PrefixKey, VoicePrefixCache

ADA, BEN, CLEO = (PrefixKey(name, None) for name in ("ada", "ben", "cleo"))
WARM_ADA = PrefixKey("ada", 0.7)


class FakeDecoder:
    """Records the keys whose prefixes it embeds and computes; every prefix has 10 positions."""

    def __init__(self) -> None:
        self.embedded: list[PrefixKey] = []
        self.computed: list[PrefixKey] = []

    def embed_voice(self, key: PrefixKey) -> Any:
        self.embedded.append(key)
        return SimpleNamespace(key=key, count=10, kept=10)

    def compute_prefix(self, prefix: Any) -> None:
        self.computed.append(prefix.key)


@pytest.fixture
def decoder() -> FakeDecoder:
    return FakeDecoder()


@pytest.fixture
def cache(decoder: FakeDecoder, monkeypatch: pytest.MonkeyPatch) -> VoicePrefixCache:
    """A cache for two prefixes, whose conditionals are the keys themselves."""
    monkeypatch.setattr(voice_prefix, "MAX_PREFIX_POSITIONS", 25)
    fake: Any = decoder
    return VoicePrefixCache(fake, lambda key: key)


def test_what_a_prefix_has_gained_counts(cache: VoicePrefixCache) -> None:
    cache.get(ADA)
    grown: Any = cache.get(BEN)
    grown.kept = 20
    cache.get(BEN)
    assert list(cache.entries) == [BEN]


def test_a_prefix_is_embedded_once(cache: VoicePrefixCache, decoder: FakeDecoder) -> None:
    first = cache.get(ADA)
    assert cache.get(ADA) is first
    assert decoder.embedded == [ADA]
    assert decoder.computed == [], "the decoder computes it with the first utterance"


def test_the_least_recently_used_prefix_is_evicted(cache: VoicePrefixCache) -> None:
    for key in (ADA, BEN, ADA, CLEO):
        cache.get(key)
    assert list(cache.entries) == [ADA, CLEO]


def test_the_latest_prefix_is_cached_whatever_its_length(
    cache: VoicePrefixCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice_prefix, "MAX_PREFIX_POSITIONS", 5)
    cache.get(ADA)
    cache.get(BEN)
    assert list(cache.entries) == [BEN]


def test_precomputing_evicts_nothing(cache: VoicePrefixCache, decoder: FakeDecoder) -> None:
    for key in (ADA, BEN, CLEO):
        cache.precompute(key)
    assert list(cache.entries) == decoder.computed == [ADA, BEN]


def test_a_voice_is_discarded_at_every_exaggeration(cache: VoicePrefixCache) -> None:
    cache.get(ADA)
    cache.get(WARM_ADA)
    cache.discard("ada")
    cache.discard("nobody")
    assert cache.entries == {}
    cache.get(BEN)
    cache.discard("ada")
    assert list(cache.entries) == [BEN]
