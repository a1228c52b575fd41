"""The permission to use tile registers."""

from __future__ import annotations

import subprocess
import sys

from tests.support.precisions import PROCESSOR

_ASK = (
    "from worker.engines.chatterbox.kernels.simd.tile_permission import may_use_tiles;"
    "print(may_use_tiles(), may_use_tiles())"
)


def test_only_a_processor_with_tiles_gets_them() -> None:
    asked = subprocess.run([sys.executable, "-c", _ASK], check=True, capture_output=True, text=True)
    first, second = asked.stdout.split()
    assert first == second
    assert first == "False" or "amx_int8" in PROCESSOR.instruction_sets
