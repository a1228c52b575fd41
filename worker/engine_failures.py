"""Tells why an engine failed on an utterance: for lack of memory or a failed device, or by a defect.

The first is a fault of this process, which another worker need not have. Libraries have no common error for it, and
some are not loaded here, so their errors are recognised by name and message.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

EXHAUSTED = "exhausted"
INTERNAL = "internal"

_ERROR_NAMES = frozenset({"MemoryError", "OutOfMemoryError", "AcceleratorError", "_ArrayMemoryError", "EPFail"})
"""Names of classes: Python's and numpy's, PyTorch's, ONNX Runtime's."""

_PHRASES = (
    "out of memory",
    "not enough memory",
    "cannot allocate memory",
    "failed to allocate memory",
    "bad_alloc",
    "can't start new thread",
    "cuda error",
    "cublas_status",
    "cudnn_status",
    "device-side assert",
    "hip error",
)
"""Parts of messages, in lower case."""

_ERRNOS = frozenset({errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EIO, errno.ENODEV})


def failure_code(error: BaseException) -> str:
    """EXHAUSTED or INTERNAL, from the error and those that caused it."""
    return EXHAUSTED if any(map(_is_exhaustion, _chain(error))) else INTERNAL


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _is_exhaustion(error: BaseException) -> bool:
    if any(cls.__name__ in _ERROR_NAMES for cls in type(error).__mro__):
        return True
    if isinstance(error, OSError) and error.errno in _ERRNOS:
        return True
    message = str(error).lower()
    return any(phrase in message for phrase in _PHRASES)
