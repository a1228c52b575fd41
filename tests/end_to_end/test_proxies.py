"""Streams through nginx and HAProxy, as `deploy/` configures them, with a real balancer and a stub worker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.harness import TIMEOUT, Server, serve_stub, wait_until
from tests.support.proxies import start_haproxy, start_nginx

TEXT = "The first paragraph is here.\n\nslow\n\nThe last one comes later."
FAILING = "The first paragraph is here.\n\nfail"
PROXIES = {"nginx": start_nginx, "haproxy": start_haproxy}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve_stub(cache_mib=0, normalize=False, ejection_failures=0, trusted_proxies="127.0.0.0/8") as running:
        yield running


@pytest.fixture(scope="module", params=PROXIES)
def client(
    request: pytest.FixtureRequest, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A client of the server behind a proxy."""
    with (
        PROXIES[request.param](tmp_path_factory.mktemp("proxy"), server.url) as url,
        httpx.Client(base_url=url, timeout=TIMEOUT, trust_env=False) as client,
    ):
        wait_until(lambda: client.get("/ready").status_code == 200)
        yield client


@pytest.fixture
def go(server: Server) -> Iterator[Path]:
    """The file that lets slow texts go on, as long as it is there."""
    file = server.stub.path.parent / "go"
    yield file
    file.unlink(missing_ok=True)


def test_a_stream_passes_as_it_comes(client: httpx.Client, server: Server, go: Path) -> None:
    body = {"text": TEXT, "stream": True, "seed": 1}
    with client.stream("POST", "/tts", json=body) as response:
        pieces = response.iter_raw()
        heard = next(pieces)
        assert (response.headers["transfer-encoding"], heard[:4]) == ("chunked", b"RIFF")
        go.touch()
        heard += b"".join(pieces)
    assert heard == server.client.post("/tts", json=body).content


def test_events_pass_as_they_come(client: httpx.Client, go: Path) -> None:
    body = {"model": "tts-1", "voice": "default", "input": TEXT, "response_format": "wav", "stream_format": "sse"}
    with client.stream("POST", "/v1/audio/speech", json=body) as response:
        lines = response.iter_lines()
        assert "speech.audio.delta" in next(lines)
        go.touch()
        events = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    assert events[-1]["type"] == "speech.audio.done"


def test_a_stream_that_breaks_off_is_an_error_to_the_client(client: httpx.Client) -> None:
    def read() -> None:
        with client.stream("POST", "/tts", json={"text": FAILING, "stream": True}) as response:
            assert response.status_code == 200
            for _ in response.iter_raw():
                pass

    with pytest.raises(httpx.RemoteProtocolError):
        read()


def test_a_job_is_listened_to_and_its_head_is_right(client: httpx.Client, go: Path) -> None:
    job: dict[str, Any] = client.post("/queue", json={"text": TEXT, "normalize": False}).json()
    assert job["statusUrl"].startswith(str(client.base_url).rstrip("/"))
    listener = f"/audio/{job['requestId']}?stream=true"
    with client.stream("GET", listener) as response:
        pieces = response.iter_raw()
        heard = next(pieces)
        assert client.head(listener).headers["content-type"] == "audio/wav"
        go.touch()
        heard += b"".join(pieces)
    wait_until(lambda: client.get(job["statusUrl"]).json()["ready"])
    head, whole = client.head(listener), client.get(listener)
    assert (head.content, head.headers["content-length"]) == (b"", str(len(whole.content)))
    assert heard[44:] == whole.content[44:]
    part = client.get(listener, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, whole.content[100:200])
