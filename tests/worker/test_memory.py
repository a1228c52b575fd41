from __future__ import annotations

import subprocess
import sys

from tests.support.harness import ROOT, environment

GIVE_BACK = """
import psutil
from worker.memory import trim_heap
pieces = [bytearray(64 * 1024) for _ in range(2_000)]
last = pieces.pop()  # keeps the end of the heap, so that nothing before it is returned of itself
pieces.clear()
before = psutil.Process().memory_info().rss
trim_heap()
print(before - psutil.Process().memory_info().rss)
"""

CACHES = """
import os
from worker.memory import limit_primitive_cache
limit_primitive_cache()
print(os.environ["LRU_CACHE_CAPACITY"], os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"])
"""


def output(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    )
    return done.stdout


def test_freed_memory_goes_back_to_the_system() -> None:
    assert int(output(GIVE_BACK)) > 100 * 2**20


def test_what_the_library_of_convolutions_keeps_is_bounded() -> None:
    kept = [int(value) for value in output(CACHES).split()]
    assert all(1 <= value <= 64 for value in kept)
    assert len(kept) == 2
