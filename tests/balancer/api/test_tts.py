"""`GET /tts`, with a real balancer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.harness import Server, serve_stub, wait_until

KEY = "a-key-for-the-tests-of-gets"
PAGE = "https://page.example"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve_stub(get_tts=True, cache_mib=10, cors_origins=PAGE) as server:
        yield server


def get(server: Server, *, method: str = "GET", headers: dict[str, str] | None = None, **query: Any) -> httpx.Response:
    return server.client.request(method, "/tts", params=query, headers=headers)


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_a_get_speaks_as_the_post_does(server: Server) -> None:
    posted = server.client.post("/tts", json={"text": "One text.", "format": "mp3", "speed": 1.5, "seed": 7})
    got = get(server, text="One text.", format="mp3", speed=1.5, seed=7)
    assert (posted.status_code, got.status_code) == (200, 200)
    assert got.content == posted.content
    assert got.headers["Content-Type"] == "audio/mpeg"
    assert posted.headers["X-Cache"] == "miss"
    assert got.headers["X-Cache"] in ("hit", "coalesced")
    assert got.headers["X-Audio-Seconds"] == posted.headers["X-Audio-Seconds"]
    assert got.headers["Cache-Control"] == "private"


def test_a_get_streams(server: Server) -> None:
    text = " ".join(f"This is sentence number {number} of a long text." for number in range(20))
    response = get(server, text=text, stream="true", format="mp3")
    assert response.status_code == 200
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert response.headers["Cache-Control"] == "no-store, no-transform"


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({}, "invalid_request"),
        ({"text": "Hi.", "speed": "fast"}, "invalid_request"),
        ({"text": "Hi.", "voice": "nobody"}, "voice_not_found"),
        ({"text": "Hi.", "nonsense": "1"}, "unknown_parameter"),
        ({"text": "Hi.", "expires": "1"}, "unknown_parameter"),
        ({"text": "long " * 1001}, "text_too_long"),
    ],
)
def test_a_get_is_refused_as_the_post_is(server: Server, query: dict[str, Any], error: str) -> None:
    assert code(get(server, **query)) == (400, error)
    assert get(server, method="HEAD", **query).status_code == 400


def test_a_get_is_answered_in_ranges(server: Server) -> None:
    query: dict[str, Any] = {"text": "This is asked for in parts.", "seed": 7}
    whole = get(server, **query)
    assert whole.headers["Accept-Ranges"] == "bytes"
    size = len(whole.content)
    for asked, start, stop in (
        ("bytes=0-1", 0, 2),
        ("bytes=0-", 0, size),
        ("bytes=5-", 5, size),
        ("bytes=-7", size - 7, size),
    ):
        part = get(server, **query, headers={"Range": asked})
        assert (part.status_code, part.content) == (206, whole.content[start:stop])
        assert part.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{size}"
        assert part.headers["Content-Length"] == str(stop - start)
        assert part.headers["Content-Type"] == "audio/wav"
    outside = get(server, **query, headers={"Range": f"bytes={size}-"})
    assert code(outside) == (416, "range_not_satisfiable")
    assert outside.headers["Content-Range"] == f"bytes */{size}"
    for headers in ({"Range": "bytes=0-1,3-4"}, {"Range": "bytes=0-1", "If-Range": '"x"'}, {"Range": "nonsense"}):
        assert get(server, **query, headers=headers).status_code == 200
    posted = server.client.post("/tts", json=query, headers={"Range": "bytes=0-1"})
    assert (posted.status_code, posted.content) == (200, whole.content)


def test_a_later_range_is_of_the_same_take_or_the_answer_is_whole(server: Server) -> None:
    uncached = {"Cache-Control": "no-store"}
    query: dict[str, Any] = {"text": "Each take of this is another."}
    assert get(server, **query, headers=uncached | {"Range": "bytes=0-1"}).status_code == 206
    assert get(server, **query, headers=uncached | {"Range": "bytes=2-"}).status_code == 200
    get(server, **query)
    wait_until(lambda: get(server, **query).headers["X-Cache"] == "hit")
    assert get(server, **query, headers={"Range": "bytes=2-"}).status_code == 206


def test_a_head_makes_no_audio(server: Server) -> None:
    def spoken() -> int:
        return server.stub.state().done

    before = spoken()
    response = get(server, method="HEAD", text="Nobody has said this.", format="opus", stream="true")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == get(server, text="Hi.", format="opus").headers["Content-Type"]
    assert "Content-Length" not in response.headers
    assert spoken() == before + 1


def test_foreign_pages_cannot_embed_a_server_without_keys(server: Server) -> None:
    def status(**headers: str) -> int:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return get(server, text="Hi.", headers=sent).status_code

    assert status(Sec_Fetch_Site="cross-site", Referer="https://evil.example/page") == 403
    assert status(Sec_Fetch_Site="cross-site") == 403
    assert status(Referer="https://evil.example/http://localhost/") == 403
    assert status(Sec_Fetch_Site="cross-site", Referer=f"{PAGE}/") == 200
    assert status(Sec_Fetch_Site="same-site", Referer="http://localhost:3000/page") == 200
    assert status(Sec_Fetch_Site="same-site") == 200
    assert status(Sec_Fetch_Site="none") == 200
    assert status() == 200
    assert status(Origin="https://evil.example") == 403
    assert get(server, text="Hi.", headers={"Host": "evil.example"}).status_code == 421


def test_without_the_setting_there_is_no_get() -> None:
    with serve_stub(api_keys=KEY) as server:
        assert code(get(server, text="Hi.")) == (401, "invalid_api_key")
        refused = get(server, text="Hi.", headers={"X-API-Key": KEY})
        assert code(refused) == (405, "method_not_allowed")
        assert refused.headers["Allow"] == "POST"


def test_where_keys_are_required_a_get_needs_one_and_is_limited() -> None:
    with serve_stub(get_tts=True, api_keys=KEY, rate_requests_per_minute=1) as server:
        with_key = {"X-API-Key": KEY, "Sec-Fetch-Site": "cross-site"}
        assert code(get(server, text="Hi.")) == (401, "invalid_api_key")
        assert get(server, text="Hi.", headers=with_key, method="HEAD").status_code == 200
        assert get(server, text="Hi.", headers=with_key).status_code == 200
        assert code(get(server, text="Hi.", headers=with_key)) == (429, "rate_limit_exceeded")
