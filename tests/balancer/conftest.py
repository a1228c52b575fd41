from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The balancer's tests run on the loop that the balancer runs on."""
    return {"uvloop": uvloop.new_event_loop}
