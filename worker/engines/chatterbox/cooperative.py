"""Long computations as generators, so that others get their turn in the thread that drives the model."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

from torch import Tensor

Result = TypeVar("Result")

Pieces = Generator[None, None, Tensor]
"""Yields between pieces of work, tens of milliseconds each, and returns its result."""


def whole(pieces: Generator[None, None, Result]) -> Result:
    """Run all pieces at once; their result."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            result: Result = end.value
            return result
