"""Streams that are compared with their undisturbed twins: a text with its seed, and the PCM that it must have."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

import httpx


@dataclass(frozen=True)
class Twin:
    """A text with its seed, and the PCM of its undisturbed stream."""

    text: str
    seed: int
    pcm: bytes = b""


def request_stream(client: httpx.AsyncClient, twin: Twin) -> AbstractAsyncContextManager[httpx.Response]:
    """Ask for the stream of a text, which is to be made anew."""
    body = {"text": twin.text, "seed": twin.seed, "format": "pcm", "stream": True}
    return client.stream("POST", "/tts", json=body, headers={"Cache-Control": "no-store"})


async def hear_undisturbed(client: httpx.AsyncClient, texts: Iterable[Twin]) -> list[Twin]:
    """Hear texts one after another, while nothing disturbs their streams; returns them with their PCM."""
    twins = []
    for twin in texts:
        async with request_stream(client, twin) as response:
            twins.append(replace(twin, pcm=await response.raise_for_status().aread()))
    return twins
