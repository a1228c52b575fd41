"""Names that a server without API keys answers to, with a real balancer."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.harness import serve_stub

KEY = "a-key-for-the-tests-of-hosts"
EVIL = {"Host": "evil.example:5000"}


def status(server: Any, **headers: str) -> tuple[int, str | None]:
    response: httpx.Response = server.client.post("/tts", json={"text": "Hi."}, headers=headers)
    return response.status_code, response.json()["error"]["code"] if response.status_code != 200 else None


def test_a_server_on_loopback_without_keys_answers_to_its_names_only() -> None:
    with serve_stub(public_url="https://speech.example.org", allowed_hosts="tts.lan") as server:
        for host in ("localhost:1", "127.0.0.1", "[::1]:5000", "speech.example.org", "tts.lan:80"):
            assert status(server, Host=host) == (200, None)
        assert status(server, **EVIL) == (421, "unknown_host")
        assert status(server, **EVIL, Origin="http://evil.example:5000") == (421, "unknown_host")
        for origin in ("http://evil.example", "null", "https://localhost.evil.example"):
            assert status(server, Origin=origin) == (403, "not_allowed")
        for origin in (server.url, "http://localhost:3000", "https://speech.example.org"):
            assert status(server, Origin=origin) == (200, None)
        response = server.client.get("/health", headers=EVIL)
        assert response.status_code == 421
        assert "CHORUS_ALLOWED_HOSTS" in response.json()["error"]["message"]
        assert "x-request-id" in response.headers


@pytest.mark.parametrize("settings", [{"api_keys": KEY}, {"host": "0.0.0.0", "allow_anonymous": True}])
def test_where_keys_are_required_or_the_names_unknown_any_host_is_answered(settings: dict[str, Any]) -> None:
    with serve_stub(**settings) as server:
        assert status(server, **EVIL, **{"X-API-Key": KEY}) == (200, None)
