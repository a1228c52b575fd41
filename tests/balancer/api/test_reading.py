"""The memory that bodies of requests take while they are received."""

from __future__ import annotations

from balancer.settings_groups import MIB
from tests.support.harness import Server, serve_stub, wait_until
from tests.support.raw_http import TTS, ask, connect, with_body

BATCH = (
    b"POST /queue/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n"
)
HELD = b'{"text": "Hi."}' + b" " * MIB
"""A part of a batch: more than half of what one caller may hold."""


def taken(server: Server) -> float:
    lines = server.client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("chorus_audio_memory_bytes "))


def test_one_caller_holds_its_share_of_the_memory_with_bodies() -> None:
    with serve_stub(memory_mib=384 + 64, memory_caller_percent=2) as server:
        with connect(server.url, source="127.0.0.2") as slow:
            slow.send(BATCH % (2 * len(HELD)) + HELD)
            wait_until(lambda: taken(server) >= len(HELD))
            with connect(server.url, source="127.0.0.2") as second:
                second.send(BATCH % len(HELD) + HELD)
                refused = second.response()
            assert (refused.status, refused.code) == (503, "memory_full")
            assert int(refused.headers["retry-after"]) >= 1
            with connect(server.url, source="127.0.0.3") as other:
                other.send(BATCH % len(HELD) + HELD)
                assert other.response().status == 202
        wait_until(lambda: not taken(server))
        assert ask(server.url, with_body(TTS)).status == 200
