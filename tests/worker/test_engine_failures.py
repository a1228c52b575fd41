"""Which errors of an engine are a fault of its process."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from worker.engine_failures import EXHAUSTED, INTERNAL, failure_code


class OutOfMemoryError(RuntimeError):
    """Named as PyTorch's error, which is not installed with every engine."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryError("tried to allocate 2 GiB"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        OSError(errno.EMFILE, "Too many open files"),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried to allocate 9 B"
        ),
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
    ],
)
def test_a_process_without_memory_or_device(error: Exception) -> None:
    assert failure_code(error) == EXHAUSTED


def test_numpy_without_memory() -> None:
    with pytest.raises(MemoryError) as raised:
        np.empty(2**62, np.uint8)
    assert failure_code(raised.value) == EXHAUSTED


def test_an_error_that_exhaustion_caused() -> None:
    error = RuntimeError("the decoder failed")
    error.__cause__ = MemoryError()
    assert failure_code(error) == EXHAUSTED


@pytest.mark.parametrize("error", [ZeroDivisionError("a secret"), IndexError("index 9 is out of range"), KeyError("a")])
def test_a_defect(error: Exception) -> None:
    assert failure_code(error) == INTERNAL
