"""Long audio over HTTP: a stub worker returns two minutes of it."""

from __future__ import annotations

import base64
import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.harness import TIMEOUT, start_balancer, start_stub, wait_until

PCM_BYTES = 6_000_000
MIB = 2**20
TEXT = "A long text, " * 12
"""Audio of two minutes for a shorter one would be taken for a worker's mistake."""


class Long(NamedTuple):
    url: str
    client: httpx.Client


@pytest.fixture
def server(run_dir: Path) -> Iterator[Long]:
    with (
        start_stub(run_dir, audio_bytes=PCM_BYTES),
        start_balancer(run_dir, json_audio_mib=8, cache_mib=64) as url,
        httpx.Client(base_url=url, timeout=TIMEOUT, trust_env=False) as client,
    ):
        yield Long(url, client)


def test_long_audio_is_the_same_from_worker_cache_and_json(server: Long) -> None:
    body = {"text": TEXT, "format": "wav"}
    first = server.client.post("/tts", json=body)
    assert (first.status_code, first.headers["x-cache"]) == (200, "miss")
    assert len(first.content) == PCM_BYTES + 44 == int(first.headers["content-length"])
    wait_until(lambda: server.client.post("/tts", json=body).headers["x-cache"] == "hit")
    assert server.client.post("/tts", json=body).content == first.content
    answer = server.client.post("/tts-json", json=body)
    assert answer.status_code == 200
    assert int(answer.headers["content-length"]) == len(answer.content)
    value = json.loads(answer.content)
    assert base64.b64decode(value.pop("audio"), validate=True) == first.content
    assert value == {
        "format": "wav",
        "mimeType": "audio/wav",
        "sampleRate": 24_000,
        "duration": 125.0,
        "character": "default",
        "cached": True,
        "requestId": answer.headers["x-request-id"],
    }


def test_audio_that_is_too_large_for_json_is_refused_with_the_remedy(server: Long) -> None:
    answer = server.client.post("/tts-json", json={"text": TEXT, "format": "wav", "speed": 0.5})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "audio_too_large")
    assert "POST /tts" in answer.json()["error"]["message"]
    assert server.client.post("/tts", json={"text": TEXT, "format": "wav", "speed": 0.5}).status_code == 200


def resident(server: Long) -> float:
    text = server.client.get("/metrics").text
    found = re.search(r"^process_resident_memory_bytes (\S+)", text, re.MULTILINE)
    assert found is not None
    return float(found[1])


@pytest.mark.parametrize("path", ["/tts", "/tts-json"])
def test_clients_that_do_not_read_hold_no_memory(server: Long, path: str) -> None:
    body = json.dumps({"text": TEXT, "format": "wav"}).encode()
    headers = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    head = f"POST {path} HTTP/1.1\r\n{headers}\r\n"
    assert server.client.post(path, content=body, headers={"Content-Type": "application/json"}).status_code == 200
    wait_until(lambda: server.client.post("/tts", json=json.loads(body)).headers["x-cache"] == "hit")
    before = resident(server)
    address = urlsplit(server.url)
    with ExitStack() as stack:
        for _ in range(12):
            client = stack.enter_context(closing(socket.socket()))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(TIMEOUT)
            client.connect((address.hostname, address.port))
            client.sendall(head.encode() + body)
            assert client.recv(12) == b"HTTP/1.1 200"
        assert resident(server) - before < 24 * MIB, "12 times 6 MB are 72"
