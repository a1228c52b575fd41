from __future__ import annotations

import pytest

from balancer.api.ranges import is_valid_range


@pytest.mark.parametrize("value", ["bytes=0-", "bytes=0-0", "Bytes=1-2, 5-9", "bytes=-5", "bytes= 1-2 ,-3"])
def test_valid_ranges(value: str) -> None:
    assert is_valid_range(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=9-2",
        "bytes=1-2,9-2",
        "bytes=-",
        "bytes=a-b",
        "lines=1-2",
        "bytes=+1-2",
        "bytes=٣-",
        f"bytes={'9' * 5000}-",
    ],
)
def test_ranges_that_are_ignored(value: str) -> None:
    assert not is_valid_range(value)
