"""Caching and coalescing over HTTP, with a real balancer and a stub worker that counts its utterances."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.harness import TIMEOUT, Server, serve_stub, start_balancer, start_stub, wait_until
from tests.support.raw_http import TTS, connect, with_body


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve_stub(cache_mib=64) as running:
        yield running


def synthesized(server: Server) -> int:
    """Number of utterances that the worker has synthesized."""
    return server.stub.state().done


def tts(server: Server, text: str, *, cache_control: str | None = None, **body: Any) -> httpx.Response:
    headers = {} if cache_control is None else {"Cache-Control": cache_control}
    response = server.client.post("/tts", json={"text": text} | body, headers=headers)
    assert response.status_code == 200, response.text
    return response


def test_the_second_request_is_a_hit(server: Server) -> None:
    first = tts(server, "One.")
    assert first.headers["x-cache"] == "miss"
    before = synthesized(server)
    wait_until(lambda: tts(server, "One.").headers["x-cache"] == "hit")
    second = tts(server, "One.")
    assert second.content == first.content
    assert second.headers["x-audio-seconds"] == first.headers["x-audio-seconds"]
    assert synthesized(server) == before
    third = server.client.post("/tts-json", json={"text": "One."})
    assert third.json()["cached"] is True
    assert third.headers["x-cache"] == "hit"
    assert base64.b64decode(third.json()["audio"]) == first.content
    metrics = server.client.get("/metrics").text
    assert 'chorus_cache_total{outcome="hit"}' in metrics


def test_texts_that_say_the_same_share_their_audio(server: Server) -> None:
    wait_until(lambda: tts(server, "It costs $5.").headers["x-cache"] == "hit")
    before = synthesized(server)
    assert tts(server, "It  costs **five&nbsp;dollars**.").headers["x-cache"] == "hit"
    assert tts(server, "It costs five dollars.", normalize=False).headers["x-cache"] == "hit"
    assert synthesized(server) == before
    assert tts(server, "It costs $5.", normalize=False).headers["x-cache"] == "miss"


def test_one_synthesis_serves_every_format_and_speed(server: Server) -> None:
    wait_until(lambda: tts(server, "Two.").headers["x-cache"] == "hit")
    before = synthesized(server)
    for audio_format in ("pcm", "mp3", "flac", "opus", "aac"):
        assert tts(server, "Two.", format=audio_format).headers["x-cache"] == "hit"
    assert tts(server, "Two.", speed=2.0).headers["x-cache"] == "hit"
    openai = {"model": "tts-1", "input": "Two.", "voice": "alloy"}
    assert server.client.post("/v1/audio/speech", json=openai | {"voice": "default"}).headers["x-cache"] == "hit"
    assert synthesized(server) == before


@pytest.mark.parametrize(
    "other", [{"text": "Three!"}, {"seed": 1}, {"seed": 2}, {"text": "three."}], ids=["text", "seed", "seed2", "case"]
)
def test_whatever_changes_the_pcm_is_synthesized_anew(server: Server, other: dict[str, Any]) -> None:
    tts(server, "Three.")
    before = synthesized(server)
    assert tts(server, **({"text": "Three."} | other)).headers["x-cache"] == "miss"
    assert synthesized(server) == before + 1


def test_no_store_neither_reads_nor_writes_the_cache(server: Server) -> None:
    for _ in range(2):
        assert tts(server, "Four.", cache_control="no-store").headers["x-cache"] == "miss"
    assert tts(server, "Four.").headers["x-cache"] == "miss"
    before = synthesized(server)
    assert tts(server, "Four.", cache_control="no-store").headers["x-cache"] == "miss"
    assert synthesized(server) == before + 1


def test_takes_that_were_discarded_are_told_once(server: Server) -> None:
    first = tts(server, "retaken")
    assert (first.headers["x-cache"], first.headers["x-retakes"]) == ("miss", "1")
    assert "x-flaws" not in first.headers
    wait_until(lambda: tts(server, "retaken").headers["x-cache"] == "hit")
    assert "x-retakes" not in tts(server, "retaken").headers
    assert "x-retakes" not in tts(server, "A good take.").headers


@pytest.mark.parametrize(("audio_format", "seed"), [("wav", 5), ("mp3", 6)])
def test_flawed_audio_is_told_and_not_cached(server: Server, audio_format: str, seed: int) -> None:
    for _ in range(2):
        flawed = tts(server, "flawed", format=audio_format)
        assert [flawed.headers[name] for name in ("x-cache", "x-retakes", "x-flaws")] == ["miss", "2", "cut"]
    in_json = server.client.post("/tts-json", json={"text": "flawed"})
    assert in_json.headers["x-flaws"] == "cut"
    for segments in ("miss", "partial"):
        joined = tts(server, "A sentence that is good, spoken alone.\n\nflawed", format=audio_format, seed=seed)
        assert [joined.headers[name] for name in ("x-cache", "x-retakes", "x-flaws")] == [segments, "2", "cut"]


def test_no_cache_synthesizes_anew_and_stores(server: Server) -> None:
    wait_until(lambda: tts(server, "Five.").headers["x-cache"] == "hit")
    before = synthesized(server)
    assert tts(server, "Five.", cache_control="no-cache").headers["x-cache"] == "miss"
    assert synthesized(server) == before + 1
    assert tts(server, "Five.").headers["x-cache"] == "hit"


def request_concurrently(server: Server, number: int, **body: Any) -> list[Future[httpx.Response]]:
    pool = ThreadPoolExecutor(number)
    futures = [
        pool.submit(httpx.post, f"{server.url}/tts", json=body, timeout=TIMEOUT, trust_env=False) for _ in range(number)
    ]
    pool.shutdown(wait=False)
    return futures


@pytest.mark.parametrize("audio_format", ["wav", "mp3"])
def test_fifty_concurrent_requests_are_one_synthesis(audio_format: str) -> None:
    with serve_stub(cache_mib=64) as server:
        responses = [future.result() for future in request_concurrently(server, 50, text="Fifty.", format=audio_format)]
        assert {response.status_code for response in responses} == {200}
        assert len({response.content for response in responses}) == 1
        assert synthesized(server) == 1
        outcomes = [response.headers["x-cache"] for response in responses]
        assert outcomes.count("miss") == 1


def test_the_first_client_may_disconnect() -> None:
    with serve_stub(cache_mib=64) as server:

        def queued() -> dict[str, int]:
            depths: dict[str, int] = server.client.get("/health").json()["queueDepths"]
            return depths

        with connect(server.url) as before, connect(server.url) as first:
            before.send(with_body(TTS, body=b'{"text": "hang"}'))
            wait_until(lambda: bool(server.stub.state().in_flight))
            first.send(with_body(TTS, body=b'{"text": "slow", "priority": "batch"}'))
            wait_until(lambda: queued() == {"interactive": 0, "batch": 1})
            (second,) = request_concurrently(server, 1, text="slow")
            # It has joined the first: what both wait for has its priority.
            wait_until(lambda: queued() == {"interactive": 1, "batch": 0})
            before.socket.close()
            wait_until(lambda: not any(queued().values()) and bool(server.stub.state().in_flight))
        wait_until(lambda: server.log.read_text().count("POST /tts 499") == 2)
        assert server.stub.state().in_flight, "the synthesis goes on for the second client"
        (server.stub.path.parent / "go").touch()
        assert second.result().status_code == 200
        assert second.result().headers["x-cache"] == "coalesced"
        assert synthesized(server) == 1


def test_a_failure_is_not_cached(server: Server) -> None:
    for _ in range(2):
        assert server.client.post("/tts", json={"text": "fail"}).status_code == 500


def test_an_error_names_the_field_of_its_endpoint(server: Server) -> None:
    own = server.client.post("/tts", json={"text": "unspeakable"})
    openai = server.client.post("/v1/audio/speech", json={"model": "tts-1", "input": "unspeakable", "voice": "default"})
    assert own.json()["error"]["param"] == "text"
    assert openai.json()["error"]["param"] == "input"


def test_the_cache_survives_a_restart(tmp_path: Path) -> None:
    settings = {"cache_dir": tmp_path, "cache_mib": 64}
    with serve_stub(**settings) as server:
        tts(server, "Cached.", format="mp3")
        wait_until(lambda: tts(server, "Cached.", format="mp3").headers["x-cache"] == "hit")
    with serve_stub(**settings) as server:
        assert tts(server, "Cached.", format="mp3").headers["x-cache"] == "hit"
        assert synthesized(server) == 0


def test_requests_succeed_without_a_working_cache(tmp_path: Path) -> None:
    (tmp_path / "audio").write_text("no folder")
    with serve_stub(cache_dir=tmp_path, cache_mib=64) as server:
        for text in ("One.", "Two.", "Three."):
            assert tts(server, text).headers["x-cache"] == "miss"
        metrics = server.client.get("/metrics").text
        assert "chorus_cache_errors_total" in metrics
        assert server.log.read_text().count("speech goes on without the audio cache") == 1


def test_a_deleted_cache_folder_is_created_again(tmp_path: Path) -> None:
    with serve_stub(cache_dir=tmp_path, cache_mib=64) as server:
        tts(server, "Hello.")
        wait_until(lambda: tts(server, "Hello.").headers["x-cache"] == "hit")
        shutil.rmtree(tmp_path / "audio")
        assert tts(server, "Hello.").headers["x-cache"] == "miss"


def test_jobs_use_the_cache(server: Server) -> None:
    tts(server, "Nine.")
    before = synthesized(server)
    job = server.client.post("/queue", json={"text": "Nine."}).json()
    wait_until(lambda: server.client.get(job["statusUrl"]).json()["ready"])
    assert synthesized(server) == before


def test_a_request_with_a_deadline_uses_the_cache(server: Server) -> None:
    assert tts(server, "Ten.", deadline_ms=20_000).headers["x-cache"] == "miss"
    assert tts(server, "Ten.", deadline_ms=20_000).headers["x-cache"] == "hit"


def test_a_deadline_counts_only_what_is_not_cached(server: Server) -> None:
    text = "A sentence that is long enough for a segment. " * 100
    wait_until(lambda: tts(server, text).headers["x-cache"] == "hit")
    seconds = float(tts(server, text).headers["x-audio-seconds"])
    late = server.client.post("/tts", json={"text": text, "seed": 5, "deadline_ms": 4000})
    assert late.json()["error"]["code"] == "deadline_too_short"
    assert tts(server, f"{text} New.", deadline_ms=4000).headers["x-cache"] == "partial"
    assert seconds > 4


@pytest.mark.parametrize("text", ["Wait for it.[pause {}s]", "Wait. [pause {}s] Now.", "[pause {}s] Wait."])
def test_a_text_that_asks_for_a_pause_gets_it(server: Server, text: str) -> None:
    long, short = [float(tts(server, text.format(pause)).headers["x-audio-seconds"]) for pause in (4, 1)]
    assert long - short == pytest.approx(3, abs=0.01)


def test_a_template_synthesizes_only_what_is_new(server: Server) -> None:
    rest = "Your order has shipped. Thank you for your trust."
    first = tts(server, f"Hello Ann. {rest}")
    assert (first.headers["x-cache"], first.headers["x-cache-segments"]) == ("miss", "0/3")
    before = synthesized(server)
    second = tts(server, f"Hello Bob. {rest}", cache_control="no-cache")
    assert second.headers["x-cache-segments"] == "0/3"
    wait_until(lambda: tts(server, f"Hello Bob. {rest}").headers["x-cache"] == "hit")
    before = synthesized(server)
    third = tts(server, f"Hello Cid. {rest}", format="mp3")
    assert (third.headers["x-cache"], third.headers["x-cache-segments"]) == ("partial", "2/3")
    assert synthesized(server) == before + 1
    assert server.client.post("/tts-json", json={"text": f"Hello Ann. {rest}"}).headers["x-cache-segments"] == "3/3"


def test_a_seed_is_of_a_segments_place(server: Server) -> None:
    tts(server, "The first one is here. The second one is here.", seed=5)
    wait_until(
        lambda: tts(server, "The first one is here. The second one is here.", seed=5).headers["x-cache"] == "hit"
    )
    swapped = tts(server, "The second one is here. The first one is here.", seed=5)
    assert swapped.headers["x-cache"] == "miss"


def test_a_segment_that_cannot_be_spoken_is_left_out_unless_all_are(server: Server) -> None:
    assert tts(server, "unspeakable\n\nThis can be spoken.", normalize=False).headers["x-cache-segments"] == "0/1"
    error = server.client.post("/tts", json={"text": "unspeakable\n\nunspeakable", "normalize": False})
    assert (error.status_code, error.json()["error"]["code"]) == (400, "unspeakable")


def test_a_segment_that_fails_fails_its_request(server: Server) -> None:
    text = "This can be spoken.\n\nfail\n\nThis can be spoken, too."
    answer = server.client.post("/tts", json={"text": text, "normalize": False})
    assert answer.status_code == 500
    wait_until(lambda: not server.stub.state().in_flight)


def test_a_cancelled_request_frees_every_slot(run_dir: Path) -> None:
    with start_stub(run_dir, 0) as first, start_stub(run_dir, 1) as second, start_balancer(run_dir, ready=2) as url:
        stubs = (first, second)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/tts", json={"text": "hang\n\n" * 6, "normalize": False}, timeout=1.0, trust_env=False)
        wait_until(lambda: not any(stub.state().in_flight for stub in stubs))
        wait_until(lambda: httpx.get(f"{url}/health", timeout=TIMEOUT, trust_env=False).json()["queueDepth"] == 0)


def test_segments_are_spoken_on_all_workers_at_once(run_dir: Path) -> None:
    with start_stub(run_dir, 0) as first, start_stub(run_dir, 1) as second, start_balancer(run_dir, ready=2) as url:
        with ThreadPoolExecutor(1) as client:
            body = {"text": "slow\n\nslow\n\nslow", "normalize": False}
            answer = client.submit(httpx.post, f"{url}/tts", json=body, timeout=TIMEOUT)
            wait_until(lambda: all(stub.state().in_flight for stub in (first, second)))
            assert httpx.get(f"{url}/health", timeout=TIMEOUT, trust_env=False).json()["queueDepth"] == 0, (
                "not more than there are slots"
            )
            (run_dir / "go").touch()
            assert answer.result().status_code == 200
        assert first.state().done + second.state().done == 3


def test_a_request_under_way_is_not_refused_by_a_full_queue(run_dir: Path) -> None:
    with (
        start_stub(run_dir) as stub,
        start_balancer(run_dir, queue_limit=1) as url,
        ThreadPoolExecutor(2) as clients,
    ):

        def post(text: str) -> Future[httpx.Response]:
            body = {"text": text, "normalize": False}
            return clients.submit(httpx.post, f"{url}/tts", json=body, timeout=TIMEOUT, trust_env=False)

        long = post("This can be spoken.\n\nslow\n\nslow\n\nThis can be spoken, too.")
        wait_until(lambda: stub.state().done == 1 and bool(stub.state().in_flight))
        other = post("Another one.")
        wait_until(lambda: httpx.get(f"{url}/health", timeout=TIMEOUT, trust_env=False).json()["queueDepth"] == 1)
        (run_dir / "go").touch()
        assert [long.result().status_code, other.result().status_code] == [200, 200]


@pytest.mark.parametrize(("scope", "outcome"), [("shared", "hit"), ("caller", "miss")])
def test_a_hit_tells_another_caller_of_it_only_where_callers_share_the_cache(scope: str, outcome: str) -> None:
    keys = ("first-key-0123456789", "second-key-0123456789")
    with serve_stub(cache_mib=64, cache_scope=scope, api_keys=",".join(keys)) as server:

        def source(key: str) -> str:
            response = server.client.post("/tts", json={"text": "Secret."}, headers={"X-API-Key": key})
            return response.headers["x-cache"]

        assert source(keys[0]) == "miss"
        wait_until(lambda: source(keys[0]) == "hit")
        assert source(keys[1]) == outcome
