"""Cooperative steps: long computations as generators, between whose steps a thread can serve other utterances."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

from torch import Tensor

T = TypeVar("T")

CooperativeSteps = Generator[None, None, Tensor]
"""Yields between steps of tens of milliseconds, and returns the result."""


def run_to_completion(steps: Generator[None, None, T]) -> T:
    """Run all steps in a row; returns their result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
