"""Tests of kernels in matrix tiles: skipped, with the reason, where this processor or its operating system has none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.precisions import PROCESSOR
from worker.engines.chatterbox.kernels.simd.targets import TARGET

needs_tiles = pytest.mark.skipif(
    not TARGET.matrix_tiles, reason=f"needs AMX-INT8 and the permission to use it, and this is {PROCESSOR}"
)
WITHOUT_TILES = replace(TARGET, matrix_tiles=False)
"""This processor's target as if it had no matrix tiles."""
