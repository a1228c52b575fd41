"""Answers that are sent while they are made, with a real balancer and a stub worker."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.harness import Server, serve_stub, wait_until
from tests.support.raw_http import ask
from worker.cards import CARDS

FIRST = "The first paragraph is here."
LAST = "The last one comes later."
WAV_HEADER_BYTES = 44


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve_stub(cache_mib=64, normalize=False, ejection_failures=0) as running:
        yield running


def text(*paragraphs: str) -> str:
    return "\n\n".join([FIRST, *paragraphs])


def opened(server: Server, path: str = "/tts", **body: Any) -> Any:
    body = {"text": body.pop("text"), "stream": True} | body if path == "/tts" else body
    return server.client.stream("POST", path, json=body, headers={"Cache-Control": "no-store"})


def speech(**body: Any) -> dict[str, Any]:
    return {"model": "tts-1", "voice": "default", "response_format": "wav"} | body


def metric(server: Server, name: str) -> float:
    lines = server.client.get("/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


def events(response: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in response.text.splitlines() if line.startswith("data: ")]


def test_the_beginning_is_sent_before_the_end_is_made(server: Server) -> None:
    go = server.stub.path.parent / "go"
    go.unlink(missing_ok=True)
    with opened(server, text=text("slow")) as response:
        assert response.status_code == 200
        assert response.headers["transfer-encoding"] == "chunked"
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["cache-control"] == "no-store, no-transform"
        assert "content-length" not in response.headers
        pieces = response.iter_raw()
        assert next(pieces)[:4] == b"RIFF"
        assert metric(server, "chorus_streams") == 1
        assert metric(server, "chorus_stream_headroom") == CARDS["hibari"].speed - 1
        go.touch()
        rest = b"".join(pieces)
    assert len(rest) > 2 * 24_000 * 0.7
    wait_until(lambda: metric(server, "chorus_streams") == 0)
    assert metric(server, "chorus_stream_headroom") == CARDS["hibari"].speed


def test_openais_endpoint_streams_by_itself_and_whole_audio_can_be_asked_for(server: Server) -> None:
    streamed = server.client.post("/v1/audio/speech", json=speech(input=text("Another text.")))
    assert "content-length" not in streamed.headers
    whole = server.client.post("/v1/audio/speech", json=speech(input=text("Another text."), stream=False))
    assert int(whole.headers["content-length"]) == len(whole.content)
    assert whole.content[WAV_HEADER_BYTES:] == streamed.content[WAV_HEADER_BYTES:]
    assert whole.headers["x-cache"] in ("hit", "coalesced")


def test_what_is_one_segment_or_cached_comes_whole(server: Server) -> None:
    short = server.client.post("/v1/audio/speech", json=speech(input="One segment."))
    assert int(short.headers["content-length"]) == len(short.content)
    body = {"text": text("A third one."), "format": "mp3"}

    def is_whole() -> bool:
        return "content-length" in server.client.post("/tts", json=body | {"stream": True}).headers

    assert not is_whole()
    server.client.post("/tts", json=body)
    wait_until(is_whole)


@pytest.mark.parametrize("path", ["/tts", "/v1/audio/speech"])
def test_head_makes_no_audio(server: Server, path: str) -> None:
    head = server.client.head(path)
    assert (head.status_code, head.headers["allow"], head.content) == (405, "POST", b"")


@pytest.mark.parametrize("stream", [True, False])
def test_events(server: Server, *, stream: bool) -> None:
    body = speech(input=text("With events."), stream_format="sse", stream=stream, response_format="pcm")
    response = server.client.post("/v1/audio/speech", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    *deltas, done = events(response)
    assert {delta["type"] for delta in deltas} == {"speech.audio.delta"}
    audio = b"".join(base64.b64decode(delta["audio"]) for delta in deltas)
    assert audio == server.client.post("/tts", json={"text": text("With events."), "format": "pcm"}).content
    assert done["type"] == "speech.audio.done"
    assert done["usage"]["input_tokens"] == len(text("With events."))
    assert done["usage"]["output_tokens"] == round(25 * len(audio) / 48_000)


def test_a_failure_before_the_first_sound_has_its_status(server: Server) -> None:
    response = server.client.post("/tts", json={"text": f"fail\n\n{LAST}", "stream": True})
    assert (response.status_code, response.json()["error"]["code"]) == (500, "synthesis_failed")


def test_a_failure_later_breaks_the_connection(server: Server) -> None:
    def read() -> None:
        with opened(server, text=text("fail")) as response:
            assert response.status_code == 200
            for _ in response.iter_raw():
                pass

    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
        read()
    wait_until(lambda: "a stream was broken off" in server.log.read_text())
    assert "Traceback" not in server.log.read_text()


def test_a_failure_among_events_is_one(server: Server) -> None:
    body = speech(input=text("fail on 0"), stream_format="sse", response_format="wav")
    lines: list[str] = []

    def read() -> None:
        with server.client.stream("POST", "/v1/audio/speech", json=body) as response:
            for line in response.iter_lines():
                lines.append(line)

    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
        read()
    assert "event: error" in lines
    assert json.loads(lines[lines.index("event: error") + 1].removeprefix("data: "))["error"]["code"]


def test_what_cannot_be_spoken_is_left_out_unless_all_is(server: Server) -> None:
    assert server.client.post("/tts", json={"text": text("unspeakable", LAST), "stream": True}).status_code == 200
    refused = server.client.post("/tts", json={"text": "unspeakable\n\nunspeakable", "stream": True})
    assert refused.status_code == 400


def test_a_client_that_leaves_frees_the_worker(server: Server) -> None:
    (server.stub.path.parent / "go").unlink(missing_ok=True)
    with opened(server, text=text("slow", LAST)) as response:
        pieces = response.iter_raw()  # kept: the end of the iterator closes the connection
        assert next(pieces)
        wait_until(lambda: bool(server.stub.state().in_flight))
    wait_until(lambda: not server.stub.state().in_flight)
    wait_until(lambda: metric(server, "chorus_streams") == 0)


def test_json_and_jobs_are_not_streamed(server: Server) -> None:
    for path in ("/tts-json", "/queue"):
        response = server.client.post(path, json={"text": text(LAST), "stream": True})
        assert (response.status_code, response.json()["error"]["param"]) == (400, "stream")


def test_http_1_0_has_no_streams(server: Server) -> None:
    body = json.dumps({"text": text("For an old client."), "stream": True})
    head = f"POST /tts HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = ask(server.url, (head + body).encode())
    assert answer.status == 200
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert "transfer-encoding" not in answer.headers


def test_a_stream_that_the_host_cannot_keep_up_with_is_refused_where_the_operator_says_so() -> None:
    with serve_stub(cache_mib=64, normalize=False, engine="turbo", stream_admission="refuse") as server:
        body = {"text": text(LAST), "stream": True}
        refused = server.client.post("/tts", json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_headroom")
        assert int(refused.headers["retry-after"]) >= 1
        metrics = server.client.get("/metrics").text
        assert 'chorus_refusals_total{reason="no_headroom"} 1.0' in metrics
        assert server.client.post("/tts", json=body | {"stream": False}).status_code == 200

        def is_cached() -> bool:
            return server.client.post("/tts", json=body | {"stream": False}).headers["x-cache"] == "hit"

        wait_until(is_cached)
        streamed = server.client.post("/tts", json=body | {"format": "pcm"})
        assert "content-length" not in streamed.headers, "what is cached takes nothing of the workers"


def test_a_deadline_applies_to_the_whole(server: Server) -> None:
    paragraphs = [f"Paragraph {number} is long enough for a segment." for number in range(50)]
    late = server.client.post("/tts", json={"text": text(*paragraphs), "stream": True, "deadline_ms": 500})
    assert late.json()["error"]["code"] == "deadline_too_short"
