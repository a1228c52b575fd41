from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from starlette.requests import Request

from balancer.api.reading import CLIENT_WATCH, WhileConnected
from balancer.api.responses import ClientGoneError


class Client:
    """A client as the server tells of it."""

    def __init__(self, *, gone: bool = False) -> None:
        self.gone = gone
        self.on_gone: Callable[[], None] | None = None

    def watch(self, on_gone: Callable[[], None] | None) -> None:
        self.on_gone = on_gone
        if self.gone and on_gone is not None:
            on_gone()

    def leave(self) -> None:
        assert self.on_gone is not None
        self.on_gone()


def request_of(client: Client) -> Request:
    return Request({"type": "http", "extensions": {CLIENT_WATCH: lambda: client}})


async def fail_with(client: Client) -> None:
    async with WhileConnected(request_of(client)):
        raise KeyError


async def wait_for(client: Client) -> None:
    async with WhileConnected(request_of(client)):
        await asyncio.Event().wait()


async def test_a_block_ends_when_the_client_leaves() -> None:
    client = Client()
    waiting = asyncio.create_task(wait_for(client))
    await asyncio.sleep(0)
    client.leave()
    with pytest.raises(ClientGoneError):
        await waiting
    assert client.on_gone is None


async def test_a_block_does_not_run_on_for_a_client_that_has_left() -> None:
    with pytest.raises(ClientGoneError):
        await wait_for(Client(gone=True))


async def test_a_block_ends_by_itself_or_with_its_exception() -> None:
    client = Client()
    async with WhileConnected(request_of(client)):
        assert client.on_gone is not None
    assert client.on_gone is None
    with pytest.raises(KeyError):
        await fail_with(client)
    assert client.on_gone is None


async def test_another_cancellation_stays_one() -> None:
    waiting = asyncio.create_task(wait_for(Client()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
