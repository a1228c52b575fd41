"""Seconds that a model's thread spends in each stage of its work, such as decode or vocoder."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

Step = TypeVar("Step")
T = TypeVar("T")


class StageTimer:
    """A timer for one thread: `with timer("decode"): …` adds the block's duration to `seconds["decode"]`.

    A block within a block pauses the outer one, so no second is counted twice. A block must not contain a `yield` to
    other users of the same timer: `steps` is for generators.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        """Seconds so far, by stage; another thread may copy the dict at any time."""
        self._stage: str | None = None
        self._since = 0.0

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Count the block's duration as `stage`."""
        outer = self._switch_to(stage)
        try:
            yield
        finally:
            self._switch_to(outer)

    def steps(self, stage: str, steps: Generator[Step, None, T]) -> Generator[Step, None, T]:
        """The same generator; its steps are counted as `stage`, the time between its steps is not."""
        while True:
            with self(stage):
                try:
                    step = next(steps)
                except StopIteration as end:
                    result: T = end.value
                    return result
            yield step

    def watch(self, owner: Any, method: str, stage: str) -> None:
        """Count every later call of a method of the object `owner` as `stage`."""
        measured: Callable[..., Any] = getattr(owner, method)

        @wraps(measured)
        def timed(*arguments: Any, **options: Any) -> Any:
            with self(stage):
                return measured(*arguments, **options)

        setattr(owner, method, timed)

    def _switch_to(self, stage: str | None) -> str | None:
        """Start to count `stage`; returns the stage that was counted until now."""
        now = time.perf_counter()
        before = self._stage
        if before is not None:
            self.seconds[before] = self.seconds.get(before, 0.0) + now - self._since
        self._stage, self._since = stage, now
        return before
