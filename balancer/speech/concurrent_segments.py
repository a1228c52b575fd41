"""Speaks segments side by side, as many at once as there are slots."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice


async def speak_all(
    numbers: Iterable[int], speak: Callable[[int], Awaitable[None]], slots: Callable[[], int], stops: Callable[[], bool]
) -> None:
    """Await `speak` of each number, begun in their order, at most `slots()` at once, and one at least.

    None is begun once `stops()`. If one fails, the others are cancelled, and its exception is raised.
    """
    waiting = iter(numbers)
    speaking: set[asyncio.Future[None]] = set()
    try:
        while True:
            # The slots may become more meanwhile: a text may take hours.
            room = 0 if stops() else max(1, slots()) - len(speaking)
            speaking |= {asyncio.ensure_future(speak(number)) for number in islice(waiting, max(0, room))}
            if not speaking:
                return
            ended, _ = await asyncio.wait(speaking, return_when=asyncio.FIRST_COMPLETED)
            for one in ended:
                one.result()
                speaking.remove(one)
    finally:
        for one in speaking:
            one.cancel()
        await asyncio.gather(*speaking, return_exceptions=True)
