"""The operands of attention in int8."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.precisions import precision_params
from worker.engines.chatterbox.kernels.attention_int8_packing import KEYS_COLUMN, QKV_COLUMNS, pack_queries_and_keys
from worker.engines.chatterbox.kernels.jit import ArrayF32, ArrayI32
from worker.engines.chatterbox.kernels.quantize import ACTIVATION_DTYPE
from worker.precision import Precision

TIME, WIDTH = 128, 64


def packed_keys(qkv: ArrayF32) -> tuple[ArrayI32, ArrayF32]:
    """One head's keys, packed, and their scales."""
    queries, query_scales = np.zeros((TIME, WIDTH), ACTIVATION_DTYPE), np.zeros(TIME, np.float32)
    keys, scales, corrections = np.zeros(TIME * WIDTH, np.int32), np.zeros(TIME, np.float32), np.zeros(TIME, np.int32)
    pack_queries_and_keys(qkv, np.float32(1), queries, query_scales, keys, scales, corrections)
    return keys, scales


@pytest.mark.parametrize("precision", precision_params([Precision.INT8]))
def test_what_all_keys_have_in_common_costs_no_precision(precision: Precision) -> None:
    assert precision is Precision.INT8
    random = np.random.default_rng(1)
    # Integers: their mean, and so what is left without it, is exact.
    qkv = random.integers(-100, 100, (TIME, QKV_COLUMNS)).astype(np.float32)
    keys, scales = packed_keys(qkv)
    qkv[:, KEYS_COLUMN : KEYS_COLUMN + WIDTH] += random.integers(-9000, 9000, WIDTH).astype(np.float32)
    shifted_keys, shifted_scales = packed_keys(qkv)
    assert np.array_equal(shifted_keys, keys)
    assert np.array_equal(shifted_scales, scales)
    assert keys.any()
