"""What is kept and shared, over HTTP: a balancer of its own before stub workers that count what they speak."""

from __future__ import annotations

import base64
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.harness import TIMEOUT, Server, serve_stub, wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve_stub(cache_mib=64) as running:
        yield running


def spoken(server: Server) -> int:
    """Utterances that the worker has spoken."""
    return server.stub.state().done


def tts(server: Server, text: str, *, cache_control: str | None = None, **body: Any) -> httpx.Response:
    headers = {} if cache_control is None else {"Cache-Control": cache_control}
    answer = server.client.post("/tts", json={"text": text} | body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def test_the_second_request_is_a_hit(server: Server) -> None:
    first = tts(server, "One.")
    assert first.headers["x-cache"] == "miss"
    before = spoken(server)
    wait_until(lambda: tts(server, "One.").headers["x-cache"] == "hit")
    second = tts(server, "One.")
    assert second.content == first.content
    assert second.headers["x-audio-seconds"] == first.headers["x-audio-seconds"]
    assert spoken(server) == before
    third = server.client.post("/tts-json", json={"text": "One."})
    assert third.json()["cached"] is True
    assert third.headers["x-cache"] == "hit"
    assert base64.b64decode(third.json()["audio"]) == first.content
    metrics = server.client.get("/metrics").text
    assert 'chorus_cache_total{outcome="hit"}' in metrics


def test_one_sound_serves_every_format_and_speed(server: Server) -> None:
    wait_until(lambda: tts(server, "Two.").headers["x-cache"] == "hit")
    before = spoken(server)
    for audio_format in ("pcm", "mp3", "flac", "opus", "aac"):
        assert tts(server, "Two.", format=audio_format).headers["x-cache"] == "hit"
    assert tts(server, "Two.", speed=2.0).headers["x-cache"] == "hit"
    openai = {"model": "tts-1", "input": "Two.", "voice": "alloy"}
    assert server.client.post("/v1/audio/speech", json=openai | {"voice": "default"}).headers["x-cache"] == "hit"
    assert spoken(server) == before


@pytest.mark.parametrize(
    "other", [{"text": "Three!"}, {"seed": 1}, {"seed": 2}, {"text": "three."}], ids=["text", "seed", "seed2", "case"]
)
def test_what_changes_the_sound_is_another_sound(server: Server, other: dict[str, Any]) -> None:
    tts(server, "Three.")
    before = spoken(server)
    assert tts(server, **({"text": "Three."} | other)).headers["x-cache"] == "miss"
    assert spoken(server) == before + 1


def test_no_store_reads_and_leaves_nothing(server: Server) -> None:
    for _ in range(2):
        assert tts(server, "Four.", cache_control="no-store").headers["x-cache"] == "miss"
    assert tts(server, "Four.").headers["x-cache"] == "miss"
    before = spoken(server)
    assert tts(server, "Four.", cache_control="no-store").headers["x-cache"] == "miss"
    assert spoken(server) == before + 1


def test_no_cache_has_it_made_anew_and_kept(server: Server) -> None:
    wait_until(lambda: tts(server, "Five.").headers["x-cache"] == "hit")
    before = spoken(server)
    assert tts(server, "Five.", cache_control="no-cache").headers["x-cache"] == "miss"
    assert spoken(server) == before + 1
    assert tts(server, "Five.").headers["x-cache"] == "hit"


def together(server: Server, number: int, **body: Any) -> list[Future[httpx.Response]]:
    pool = ThreadPoolExecutor(number)
    futures = [
        pool.submit(httpx.post, f"{server.url}/tts", json=body, timeout=TIMEOUT, trust_env=False) for _ in range(number)
    ]
    pool.shutdown(wait=False)
    return futures


@pytest.mark.parametrize("audio_format", ["wav", "mp3"])
def test_fifty_at_once_are_one_synthesis(audio_format: str) -> None:
    with serve_stub(cache_mib=64) as server:
        answers = [future.result() for future in together(server, 50, text="Fifty.", format=audio_format)]
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        assert spoken(server) == 1
        outcomes = [answer.headers["x-cache"] for answer in answers]
        assert outcomes.count("miss") == 1


def test_the_first_to_ask_may_leave() -> None:
    with serve_stub(cache_mib=64) as server:
        left = threading.Event()

        def leave() -> None:
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{server.url}/tts", json={"text": "slow"}, timeout=1.0, trust_env=False)
            left.set()

        first = threading.Thread(target=leave)
        first.start()
        wait_until(lambda: bool(server.stub.state().in_flight))
        (second,) = together(server, 1, text="slow")
        left.wait(TIMEOUT)
        first.join()
        assert server.stub.state().in_flight, "it goes on for the second"
        (server.stub.path.parent / "go").touch()
        assert second.result().status_code == 200
        assert second.result().headers["x-cache"] == "coalesced"
        assert spoken(server) == 1


def test_a_failure_is_everybodys_and_not_kept(server: Server) -> None:
    for _ in range(2):
        assert server.client.post("/tts", json={"text": "fail"}).status_code == 500


def test_an_error_names_the_field_of_whoever_asked(server: Server) -> None:
    own = server.client.post("/tts", json={"text": "unspeakable"})
    openai = server.client.post("/v1/audio/speech", json={"model": "tts-1", "input": "unspeakable", "voice": "default"})
    assert own.json()["error"]["param"] == "text"
    assert openai.json()["error"]["param"] == "input"


def test_what_was_kept_outlives_a_restart(tmp_path: Path) -> None:
    kept = {"cache_dir": tmp_path, "cache_mib": 64}
    with serve_stub(**kept) as server:
        tts(server, "Kept.", format="mp3")
        wait_until(lambda: tts(server, "Kept.", format="mp3").headers["x-cache"] == "hit")
    with serve_stub(**kept) as server:
        assert tts(server, "Kept.", format="mp3").headers["x-cache"] == "hit"
        assert spoken(server) == 0


def test_a_broken_cache_costs_nothing_but_the_hits(tmp_path: Path) -> None:
    (tmp_path / "audio").write_text("no folder")
    with serve_stub(cache_dir=tmp_path, cache_mib=64) as server:
        for text in ("One.", "Two.", "Three."):
            assert tts(server, text).headers["x-cache"] == "miss"
        metrics = server.client.get("/metrics").text
        assert "chorus_cache_errors_total" in metrics
        assert server.log.read_text().count("speech goes on without the audio cache") == 1


def test_a_cache_that_vanishes_is_made_again(tmp_path: Path) -> None:
    with serve_stub(cache_dir=tmp_path, cache_mib=64) as server:
        tts(server, "Hello.")
        wait_until(lambda: tts(server, "Hello.").headers["x-cache"] == "hit")
        shutil.rmtree(tmp_path / "audio")
        assert tts(server, "Hello.").headers["x-cache"] == "miss"


def test_jobs_use_what_is_kept(server: Server) -> None:
    tts(server, "Nine.")
    before = spoken(server)
    job = server.client.post("/queue", json={"text": "Nine."}).json()
    wait_until(lambda: server.client.get(job["statusUrl"]).json()["ready"])
    assert spoken(server) == before


def test_with_a_deadline_of_its_own_a_request_has_nobody_join_it(server: Server) -> None:
    assert tts(server, "Ten.", deadline_ms=20_000).headers["x-cache"] == "miss"
    assert tts(server, "Ten.", deadline_ms=20_000).headers["x-cache"] == "hit"
