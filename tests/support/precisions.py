"""Test parameters over the precisions: one that this processor does not support is skipped, with the reason."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from torch import Tensor

from worker.precision import INSTRUCTION_SET_NAMES, REQUIRED_INSTRUCTION_SETS, Precision, detect_processor

PROCESSOR = detect_processor()
SUPPORTED = tuple(precision for precision in Precision if PROCESSOR.supports(precision))
"""The precisions that this processor supports: fp32 always, first."""

MAX_ERROR = {Precision.FP32: 1e-5, Precision.BF16: 2e-2, Precision.INT8: 3e-2}
"""The largest `relative_error` allowed of a product."""


def precision_params(precisions: Iterable[Precision] = Precision) -> list[Any]:
    """A pytest parameter for each precision, with a skip mark on those that this processor does not support."""
    return [pytest.param(precision, marks=skip_unsupported(precision), id=str(precision)) for precision in precisions]


def skip_unsupported(precision: Precision) -> pytest.MarkDecorator:
    """A mark that skips a test where this processor does not support the precision."""
    needed = " or ".join(INSTRUCTION_SET_NAMES[flag] for flag in REQUIRED_INSTRUCTION_SETS.get(precision, ()))
    reason = f"{precision} needs {needed}, and this processor is {PROCESSOR}"
    return pytest.mark.skipif(precision not in SUPPORTED, reason=reason)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The Euclidean norm of the error, as a share of the norm of `expected`."""
    assert found.shape == expected.shape
    return float((found - expected).norm() / expected.norm())
