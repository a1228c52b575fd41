"""`POST /tts/link` and the links that it makes, with a real balancer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from balancer.access.api_keys import ApiKey, digest_of, write_keys
from balancer.settings.http import HttpSettings
from tests.support.harness import Server, serve_stub, wait_until

SHOP, GUEST, MUTE = "the-key-of-the-shop", "the-key-of-a-guest", "the-key-without-a-voice"
PAGE = "https://page.example"
SECRET = "a secret of more than thirty-two bytes"


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    write_keys(file, keys())
    return file


def keys() -> list[ApiKey]:
    shop = ApiKey(name="shop", digest=digest_of(SHOP))
    guest = ApiKey(name="guest", digest=digest_of(GUEST), requests_per_minute=2, voices=("default",))
    mute = ApiKey(name="mute", digest=digest_of(MUTE), voices=("nobody",))
    return [shop, guest, mute]


@pytest.fixture(scope="module")
def server(keys_file: Path) -> Iterator[Server]:
    with serve_stub(keys_file=keys_file, cache_mib=10, cors_origins=PAGE, link_secret=SECRET) as server:
        yield server


def make(server: Server, key: str | None = SHOP, **body: Any) -> httpx.Response:
    headers = {} if key is None else {"X-API-Key": key}
    return server.client.post("/tts/link", json={"text": "Hi."} | body, headers=headers)


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_a_link_speaks_as_the_post_does_without_a_key(server: Server) -> None:
    body = {"text": "Zoë says: 50 % & more?\nYes/no.", "format": "mp3", "speed": 1.5, "seed": 7, "normalize": False}
    posted = server.client.post("/tts", json=body, headers={"X-API-Key": SHOP})
    made = server.client.post("/tts/link", json=body | {"expiresSeconds": 60}, headers={"X-API-Key": SHOP})
    assert made.status_code == 200
    assert made.headers["Cache-Control"] == "no-store"
    assert made.json().keys() == {"url", "expiresAt"}
    end = datetime.fromisoformat(made.json()["expiresAt"])
    assert 0 < (end - datetime.now(UTC)).total_seconds() <= 60
    url = made.json()["url"]
    assert url.startswith(f"{server.url}/tts?")
    for _ in range(2):
        spoken = httpx.get(url, headers={"Sec-Fetch-Site": "cross-site"}, trust_env=False)
        assert (spoken.status_code, spoken.content) == (200, posted.content)
        assert spoken.headers["Cache-Control"] == "private"
    head = httpx.head(url, trust_env=False)
    assert (head.status_code, head.headers["Content-Type"]) == (200, "audio/mpeg")


def test_a_page_may_play_a_link(server: Server) -> None:
    made = server.client.post("/tts/link", json={"text": "Hi."}, headers={"X-API-Key": SHOP, "Origin": PAGE})
    assert made.headers["Access-Control-Allow-Origin"] == PAGE
    played = httpx.get(made.json()["url"], headers={"Origin": PAGE}, trust_env=False)
    assert (played.status_code, played.headers["Access-Control-Allow-Origin"]) == (200, PAGE)
    altered = httpx.get(made.json()["url"] + "0", headers={"Origin": PAGE}, trust_env=False)
    assert (code(altered), altered.headers["Access-Control-Allow-Origin"]) == ((403, "link_invalid"), PAGE)


def test_a_link_streams(server: Server) -> None:
    text = " ".join(f"This is sentence number {number} of a long text." for number in range(20))
    response = httpx.get(make(server, text=text, stream=True).json()["url"], trust_env=False)
    assert (response.status_code, response.headers["Transfer-Encoding"]) == (200, "chunked")


def test_only_a_link_needs_no_key_and_no_setting(server: Server) -> None:
    assert code(make(server, None)) == (401, "invalid_api_key")
    assert code(server.client.get("/tts", params={"text": "Hi."})) == (401, "invalid_api_key")
    assert code(server.client.get("/tts", params={"text": "Hi.", "signature": "0"})) == (403, "link_invalid")
    assert code(server.client.get("/tts", params={"text": "signature"})) == (401, "invalid_api_key")
    assert code(server.client.get("/tts?text=signature=1")) == (401, "invalid_api_key")
    query = urlsplit(make(server).json()["url"]).query
    assert code(server.client.post(f"/tts?{query}", json={"text": "Hi."})) == (401, "invalid_api_key")
    assert code(server.client.get(f"/v1/models?{query}")) == (401, "invalid_api_key")
    with_key = server.client.get("/tts", params={"text": "Hi."}, headers={"X-API-Key": SHOP})
    assert code(with_key) == (405, "method_not_allowed")


def test_the_voices_and_limits_of_the_key_are_those_of_its_links(server: Server) -> None:
    assert code(make(server, MUTE)) == (403, "voice_not_allowed")
    url = make(server, GUEST).json()["url"]
    for _ in range(2):
        assert httpx.get(url, trust_env=False).status_code == 200
    limited = httpx.get(url, headers={"X-API-Key": SHOP}, trust_env=False)
    assert code(limited) == (429, "rate_limit_exceeded")
    assert limited.headers["Retry-After"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"text": ""}, "invalid_request"),
        ({"expiresSeconds": 0}, "invalid_request"),
        ({"expiresSeconds": 86_401}, "invalid_request"),
        ({"voice": "nobody"}, "voice_not_found"),
        ({"expires": 1}, "unknown_parameter"),
        ({"caller": "x"}, "unknown_parameter"),
        ({"text": "\U0001f600a" * 2000}, "text_too_long"),
    ],
)
def test_what_cannot_be_played_is_no_link(server: Server, body: dict[str, Any], error: str) -> None:
    assert code(make(server, **body)) == (400, error)


def test_the_longest_link_can_be_read(server: Server) -> None:
    def line(text: str) -> int:
        url: str = make(server, text=text).json()["url"]
        return len(f"HEAD {url.removeprefix(server.url)} HTTP/1.1\r")

    # Each of these characters takes 12 bytes of a URL, an "a" takes 1.
    emojis, letters = divmod(HttpSettings().max_header_bytes - line("a"), 12)
    text = "\U0001f600" * emojis + "a" * (letters + 1)
    assert line(text) == HttpSettings().max_header_bytes
    assert httpx.head(make(server, text=text).json()["url"], trust_env=False).status_code == 200
    assert code(make(server, text=f"{text}a")) == (400, "text_too_long")


def test_the_links_of_a_revoked_key_stop_working(server: Server, keys_file: Path) -> None:
    url = make(server).json()["url"]
    assert httpx.get(url, trust_env=False).status_code == 200
    write_keys(keys_file, keys()[1:])
    wait_until(lambda: httpx.get(url, trust_env=False).status_code == 403)
    assert code(httpx.get(url, trust_env=False)) == (403, "link_invalid")
    write_keys(keys_file, keys())
    wait_until(lambda: httpx.get(url, trust_env=False).status_code == 200)


def test_without_keys_the_checks_of_host_and_page_hold() -> None:
    with serve_stub(public_url="https://speech.example.org/voice/") as server:
        url = make(server, None).json()["url"]
        assert url.startswith("https://speech.example.org/voice/tts?")
        path = f"/tts?{urlsplit(url).query}"
        assert server.client.get(path).status_code == 200
        assert code(server.client.get(path, headers={"Host": "evil.example"})) == (421, "unknown_host")
        assert code(server.client.get(path, headers={"Referer": "https://evil.example/"})) == (403, "not_allowed")
        refused = server.client.post("/tts/link", json={"text": "Hi."}, headers={"Origin": "https://evil.example"})
        assert code(refused) == (403, "not_allowed")
