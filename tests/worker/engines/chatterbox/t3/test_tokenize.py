"""`text_tokens` gives the tokens that upstream's own `generate` passes to T3."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from tests.support.stock import StockEngine, start, synthesize
from tests.support.tiny_models import TinyCheckpoint
from worker.engines.chatterbox.t3.tokenize import text_tokens
from worker.engines.chatterbox.upstream import patches
from worker.engines.chatterbox.upstream.loading import VARIANTS

TEXTS = ("Hello there.", "it is: “quoted” — and so… on; no end", "Ja [laugh] nein!", "x" * 1200)
FOREIGN = {"ko": "안녕", "ja": "日本です", "de": "Grüße", "ru": "Привет", "he": "שלום"}


class EnoughError(Exception):
    """Ends an utterance once T3 has received its text."""


@pytest.fixture(scope="module", params=["turbo", "chatterbox", "multilingual"])
def engine(
    request: pytest.FixtureRequest, tiny_checkpoint: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> StockEngine:
    return start(request.param, tiny_checkpoint(request.param), tmp_path_factory.mktemp("cache"))


def upstream_tokens(engine: StockEngine, monkeypatch: pytest.MonkeyPatch, text: str, **own: Any) -> list[int]:
    """The text tokens that upstream's `generate` passes to T3."""
    received: list[Tensor] = []

    def decode(*, text_tokens: Tensor, **_: Any) -> None:
        received.append(text_tokens)
        raise EnoughError

    method = "inference_turbo" if VARIANTS[engine.card.name].turbo else "inference"
    monkeypatch.setattr(engine.loaded.upstream.t3, method, decode)
    with pytest.raises(EnoughError):
        synthesize(engine, text, **own)
    tokens: list[int] = received[0][0].tolist()
    return tokens


def own_tokens(engine: StockEngine, text: str, language: str | None) -> list[int]:
    with patches.muted():
        tokens: list[int] = text_tokens(engine.loaded.upstream, VARIANTS[engine.card.name], text, language).tolist()
    return tokens


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_equal_upstreams(engine: StockEngine, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    language = "en" if VARIANTS[engine.card.name].multilingual else None
    assert own_tokens(engine, text, language) == upstream_tokens(engine, monkeypatch, text)


def test_each_language_is_prepared_as_upstream_does(engine: StockEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    if not VARIANTS[engine.card.name].multilingual:
        assert own_tokens(engine, "Hi.", "de") == own_tokens(engine, "Hi.", None)
        return
    for language, text in FOREIGN.items():
        assert own_tokens(engine, text, language) == upstream_tokens(engine, monkeypatch, text, language=language)
    assert own_tokens(engine, "Hi.", "DE") == own_tokens(engine, "Hi.", "de")
