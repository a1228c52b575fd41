from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from balancer.api.ranges import RangeFileResponse, is_valid_range, one_range
from balancer.errors import RangeNotSatisfiableError


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


@pytest.mark.parametrize(
    ("value", "positions"),
    [
        ("bytes=0-", range(10)),
        ("bytes=0-1", range(2)),
        ("bytes=3-99", range(3, 10)),
        ("Bytes= 9-9", range(9, 10)),
        ("bytes=-3", range(7, 10)),
        ("bytes=-99", range(10)),
        ("bytes=0-1,3-4", None),
        ("bytes=4-3", None),
        ("lines=0-", None),
    ],
)
def test_one_range(value: str, positions: range | None) -> None:
    assert one_range(value, 10) == positions


@pytest.mark.parametrize("value", ["bytes=10-", "bytes=-0"])
def test_one_range_outside_of_the_file(value: str) -> None:
    with pytest.raises(RangeNotSatisfiableError) as caught:
        one_range(value, 10)
    assert caught.value.headers == {"Content-Range": "bytes */10"}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    file = tmp_path / "digits"
    file.write_bytes(b"0123456789")

    def respond(_: Request) -> Response:
        return RangeFileResponse(file, media_type="audio/wav")

    transport = httpx.ASGITransport(Starlette(routes=[Route("/", respond)]))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as opened:
        yield opened


@pytest.mark.parametrize(
    ("value", "content_range", "content"),
    [
        ("bytes=2-4", "bytes 2-4/10", b"234"),
        ("bytes=-3", "bytes 7-9/10", b"789"),
        ("bytes=-10", "bytes 0-9/10", b"0123456789"),
        ("bytes=-11", "bytes 0-9/10", b"0123456789"),
        (f"bytes=-{'9' * 19}", "bytes 0-9/10", b"0123456789"),
        ("bytes=8-99", "bytes 8-9/10", b"89"),
        ("bytes=20-30, 2-4", "bytes 2-4/10", b"234"),
    ],
)
async def test_what_of_a_file_is_sent(
    client: httpx.AsyncClient, value: str, content_range: str, content: bytes
) -> None:
    response = await client.get("/", headers={"Range": value})
    assert response.status_code == 206
    assert response.headers["content-range"] == content_range
    assert response.content == content


@pytest.mark.parametrize("value", ["bytes=10-", "bytes=20-30", "bytes=-0", "bytes=10-, -0"])
async def test_ranges_outside_of_the_file(client: httpx.AsyncClient, value: str) -> None:
    response = await client.get("/", headers={"Range": value})
    assert response.status_code == 416
    assert response.headers["content-range"] == "bytes */10"
    assert response.json()["error"]["code"]
