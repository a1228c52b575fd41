from __future__ import annotations

import pytest

from balancer.requests.cache_control import CacheUse


@pytest.mark.parametrize(
    ("header", "reads", "writes"),
    [
        (None, True, True),
        ("", True, True),
        ("max-age=600", True, True),
        ("no-store", False, False),
        ("No-Store", False, False),
        ("no-cache, no-store", False, False),
        ("no-cache", False, True),
        ("private,  NO-CACHE ", False, True),
        ("max-age=0", False, True),
        ("no-storeroom", True, True),
    ],
)
def test_what_cache_control_allows(header: str | None, reads: bool, writes: bool) -> None:
    assert CacheUse.of(header) == CacheUse(reads, writes)
