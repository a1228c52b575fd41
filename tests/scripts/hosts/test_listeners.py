"""Listeners of streams: what they take for whole, for broken off, and for a failure."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from scripts.hosts import listeners
from scripts.hosts.listeners import Heard, Listeners, texts
from scripts.support.stream_twins import Twin

PCM = bytes(range(200))


class Audio(httpx.AsyncByteStream):
    """The body of an answer; `broken`: its connection then breaks."""

    def __init__(self, audio: bytes, *, broken: bool = False) -> None:
        self._audio = audio
        self._broken = broken

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._audio
        if self._broken:
            raise httpx.RemoteProtocolError("peer closed connection")


def answer(audio: bytes, *, broken: bool = False) -> httpx.Response:
    return httpx.Response(200, stream=Audio(audio, broken=broken))


async def heard(*answers: httpx.Response, monkeypatch: pytest.MonkeyPatch) -> Heard:
    """What a listener makes of these answers to the same request."""
    monkeypatch.setattr(listeners, "RETRY_SECONDS", 0.0)
    rest = iter(answers)
    transport = httpx.MockTransport(lambda _: next(rest))
    async with httpx.AsyncClient(transport=transport, base_url="http://host") as client:
        one = Listeners(client, [])
        one.during = "a kill"
        await one.hear(Twin("text", 1, PCM))
    assert next(rest, None) is None
    return one.heard


async def test_a_whole_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await heard(answer(PCM), monkeypatch=monkeypatch) == Heard(whole=1)


async def test_one_that_breaks_off_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = answer(PCM[:100], broken=True), answer(PCM)
    found = await heard(*answers, monkeypatch=monkeypatch)
    assert (found.whole, found.retried, found.broken, found.failures) == (1, 1, {"a kill": 1}, {})


@pytest.mark.parametrize(
    ("sent", "fault"),
    [
        (answer(PCM[:100]), "it ended as if it were whole"),
        (answer(PCM + PCM), "other audio than undisturbed"),
        (httpx.Response(503, content=b"no"), "HTTP 503 b'no'"),
    ],
)
async def test_what_must_not_be(sent: httpx.Response, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await heard(sent, monkeypatch=monkeypatch)
    assert (found.whole, found.failures) == (0, {f"stream: {fault}": 1})


def test_the_texts_differ() -> None:
    found = texts(3)
    assert len({twin.text for twin in found}) == len({twin.seed for twin in found}) == 3
