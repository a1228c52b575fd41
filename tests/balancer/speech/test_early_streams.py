"""Streams of an engine that makes the first piece of an utterance early: a real balancer and stub workers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.harness import TIMEOUT, Server, serve_stub, start_balancer, start_stub, wait_until

TOKENS = 5
FIRST_BYTES = TOKENS * 24_000 // 25 * 2
AUDIO_BYTES = 100_000
SOUND = b"\x00\x20"
ENGINE = {"engine": "turbo", "normalize": False, "stream_first_tokens": TOKENS}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve_stub(cache_mib=64, **ENGINE) as running:
        yield running


@pytest.fixture
def two_workers(run_dir: Path) -> Iterator[httpx.Client]:
    with (
        start_stub(run_dir, 0),
        start_stub(run_dir, 1),
        start_balancer(run_dir, ready=2, **ENGINE) as url,
        httpx.Client(base_url=url, timeout=TIMEOUT, trust_env=False) as client,
    ):
        yield client


def stream(client: httpx.Client, text: str, **body: Any) -> Any:
    return client.stream("POST", "/tts", json={"text": text, "stream": True, "format": "pcm"} | body)


def go(server: Server) -> Path:
    file = server.stub.path.parent / "go"
    file.unlink(missing_ok=True)
    return file


def test_the_first_piece_is_sent_before_the_rest_is_made(server: Server) -> None:
    file = go(server)
    with stream(server.client, "wait within", seed=1) as response:
        assert "content-length" not in response.headers
        pieces = response.iter_raw()
        assert next(pieces) == SOUND * (FIRST_BYTES // 2)
        file.touch()
        assert b"".join(pieces) == SOUND * ((AUDIO_BYTES - FIRST_BYTES) // 2)
    whole = server.client.post("/tts", json={"text": "wait within", "format": "pcm", "seed": 1})
    assert whole.headers["x-cache"] == "miss", "with a seed, a first piece makes other audio"
    assert whole.content == bytes(AUDIO_BYTES), "no first piece is asked for"


@pytest.mark.parametrize("audio_format", ["wav", "mp3"])
def test_a_finished_stream_is_kept_as_whole_audio_is(server: Server, audio_format: str) -> None:
    text, go_on = f"Kept as {audio_format}.", go(server)
    go_on.touch()
    with stream(server.client, text, format=audio_format) as response:
        assert "content-length" not in response.headers
        response.read()

    def hit(**body: Any) -> bool:
        answer = server.client.post("/tts", json={"text": text, "format": audio_format} | body)
        return answer.headers.get("x-cache") == "hit" and "content-length" in answer.headers

    wait_until(hit)
    assert hit(stream=True), "what is cached comes whole"


def test_a_second_client_of_a_stream_starts_from_its_beginning(server: Server) -> None:
    file, before = go(server), server.stub.state().done
    with stream(server.client, "wait within") as first, stream(server.client, "wait within") as second:
        iterators = [first.iter_raw(), second.iter_raw()]
        beginnings = [next(pieces) for pieces in iterators]
        assert beginnings == [SOUND * (FIRST_BYTES // 2)] * 2
        file.touch()
        answers = [start + b"".join(pieces) for start, pieces in zip(beginnings, iterators, strict=True)]
    assert answers == [SOUND * (AUDIO_BYTES // 2)] * 2
    assert server.stub.state().done == before + 1


def test_an_idle_host_makes_further_pieces_but_for_a_seed(server: Server) -> None:
    wait_until(lambda: server.client.get("/health").json()["freeSlots"] == 1)
    for body, expected in (({}, True), ({"seed": 5}, False)):
        with stream(server.client, "Further pieces.", **body) as response:
            response.read()
        utterance = server.stub.last_utterance()
        assert (utterance.first_piece_tokens, utterance.further_pieces) == (TOKENS, expected)
    server.client.post("/tts", json={"text": "A whole answer.", "format": "pcm"})
    assert not server.stub.last_utterance().further_pieces


def test_a_busy_host_makes_no_further_pieces(server: Server) -> None:
    file = go(server)
    with ThreadPoolExecutor() as threads, stream(server.client, "wait within", seed=4):
        waiting = threads.submit(lambda: server.client.post("/tts", json={"text": "Busy.", "stream": True}))
        wait_until(lambda: 'chorus_queue_depth{priority="interactive"} 1.0' in server.client.get("/metrics").text)
        file.touch()
        assert waiting.result().is_success
    utterance = server.stub.last_utterance()
    assert (utterance.text, utterance.further_pieces) == ("Busy.", False)


def test_a_text_of_several_segments_has_one_first_piece(server: Server) -> None:
    with stream(server.client, "The first paragraph is here.\n\nThe second one is another segment.") as response:
        audio = response.read()
    assert audio.count(SOUND) >= AUDIO_BYTES // 2 - 1
    utterance = server.stub.last_utterance()
    assert utterance.first_piece_tokens is None
    assert utterance.playout_deadline is not None
    assert utterance.playout_deadline > 0, "the listener has the first segment to play before"


def test_a_worker_that_dies_costs_a_pause(two_workers: httpx.Client) -> None:
    with stream(two_workers, "die within once") as response:
        assert response.read() == SOUND * (AUDIO_BYTES // 2)
    assert "chorus_retries_total 1.0" in two_workers.get("/metrics").text


def test_audio_that_does_not_fit_what_was_sent_breaks_the_stream_off(two_workers: httpx.Client) -> None:
    heard = bytearray()

    def listen() -> None:
        with stream(two_workers, "differ") as response:
            for piece in response.iter_raw():
                heard.extend(piece)

    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
        listen()
    assert heard == SOUND * (FIRST_BYTES // 2)


def test_a_client_that_leaves_within_the_first_segment_frees_the_worker(server: Server) -> None:
    go(server)
    with stream(server.client, "wait within", seed=3) as response:
        pieces = response.iter_raw()
        assert next(pieces)
    wait_until(lambda: not server.stub.state().in_flight)
    wait_until(lambda: "chorus_streams 0.0" in server.client.get("/metrics").text)


@pytest.mark.parametrize(
    ("longest", "held"), [(600.0, 1.0), (0.3, 0.3)], ids=["until it can be held", "as long as may be"]
)
def test_the_first_sound_is_held_back_while_the_rest_would_come_late(longest: float, held: float) -> None:
    """Of "wait within" 0.7 s of audio are expected, and that they take some seconds."""
    with serve_stub(stream_delay_seconds=longest, **ENGINE | {"engine": "nano"}) as server:
        file, began = go(server), time.monotonic()
        with stream(server.client, "wait within") as response:
            pieces = response.iter_raw()
            assert next(pieces) == SOUND * (FIRST_BYTES // 2)
            assert time.monotonic() - began >= held
            file.touch()
            assert b"".join(pieces) == SOUND * ((AUDIO_BYTES - FIRST_BYTES) // 2)
        assert "chorus_stream_delay_seconds_total" in server.client.get("/metrics").text


def test_what_fails_while_the_first_sound_is_held_back_is_a_status(run_dir: Path) -> None:
    """The rest does not fit the first piece, of which nothing has been sent: the Original is expected to take long."""
    with (
        start_stub(run_dir, 0),
        start_stub(run_dir, 1),
        start_balancer(run_dir, ready=2, stream_delay_seconds=600.0, **ENGINE | {"engine": "chatterbox"}) as url,
        httpx.Client(base_url=url, timeout=TIMEOUT, trust_env=False) as client,
        stream(client, "differ") as response,
    ):
        assert json.loads(response.read())["error"]["code"] == "synthesis_failed"
        assert response.status_code == 500
