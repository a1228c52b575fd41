"""Where a model's thread spends its time: seconds by stage of the work, such as decode or vocoder."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

Piece = TypeVar("Piece")
Whole = TypeVar("Whole")


class Stages:
    """A stopwatch for one thread. `with stages("decode"): …` adds what the block takes to `seconds["decode"]`.

    A block within a block stops the outer one's watch meanwhile: no second is counted twice. No block may reach over
    a `yield` to others that use the same stopwatch: `steps` is for generators.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        """So far, by stage; another thread may copy it at any time."""
        self._stage: str | None = None
        self._since = 0.0

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """A block whose time belongs to `stage`."""
        outer = self._turn_to(stage)
        try:
            yield
        finally:
            self._turn_to(outer)

    def steps(self, stage: str, pieces: Generator[Piece, None, Whole]) -> Generator[Piece, None, Whole]:
        """The same generator, with what its steps take counted and nothing of what runs between them."""
        while True:
            with self(stage):
                try:
                    piece = next(pieces)
                except StopIteration as end:
                    whole: Whole = end.value
                    return whole
            yield piece

    def watch(self, owner: Any, method: str, stage: str) -> None:
        """Count whatever `owner`, an object, spends in one of its methods from now on."""
        measured: Callable[..., Any] = getattr(owner, method)

        @wraps(measured)
        def timed(*arguments: Any, **options: Any) -> Any:
            with self(stage):
                return measured(*arguments, **options)

        setattr(owner, method, timed)

    def _turn_to(self, stage: str | None) -> str | None:
        """Begin `stage`; the one until now."""
        now = time.perf_counter()
        before = self._stage
        if before is not None:
            self.seconds[before] = self.seconds.get(before, 0.0) + now - self._since
        self._stage, self._since = stage, now
        return before
