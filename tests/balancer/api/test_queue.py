"""Jobs over HTTP, with a real balancer and a stub worker process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from balancer.api.queue import StatusEvents
from balancer.jobs.service import JobStatusView
from tests.support.harness import Server, serve_stub, wait_until
from tests.support.jobs import job as stored_job
from tests.support.raw_http import ask

SECRET = "whsec_" + "A" * 32

OTHER_HOST = "speech.example.org"
OTHER = {"Host": f"{OTHER_HOST}:8080"}
OTHER_URL = f"http://{OTHER_HOST}:8080"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve_stub(job_attempts=2, jobs_limit=50, jobs_caller_share=1, allowed_hosts=OTHER_HOST) as running:
        yield running


def queue(server: Server, **body: Any) -> dict[str, Any]:
    response = server.client.post("/queue", json={"text": "Hello.", "character": "default"} | body)
    assert response.status_code == 202, response.text
    receipt: dict[str, Any] = response.json()
    return receipt


def status(server: Server, job: dict[str, Any]) -> dict[str, Any]:
    response = server.client.get(job["statusUrl"])
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def ended(server: Server, job: dict[str, Any]) -> dict[str, Any]:
    wait_until(lambda: status(server, job)["state"] not in ("queued", "running"))
    return status(server, job)


def test_a_job_is_queued_synthesized_and_fetched(server: Server) -> None:
    response = server.client.post("/queue", json={"text": "Hello.", "character": "default", "userId": "u1"})
    assert response.status_code == 202
    job = response.json()
    assert job["state"] == "queued"
    assert job["position"] == 1
    assert job["etaSeconds"] >= 0
    assert response.headers["location"] == job["statusUrl"] == f"{server.url}/status/{job['requestId']}"
    done = ended(server, job)
    assert done["state"] == "done"
    assert done["ready"] is True
    assert done["progress"] == 1
    assert done["error"] is None
    assert done["userId"] == "u1"
    audio = server.client.get(done["audioUrl"])
    assert audio.headers["content-type"] == "audio/wav"
    assert audio.content[:4] == b"RIFF"
    assert done["duration"] == pytest.approx((len(audio.content) - 44) / 48_000, abs=0.001)


def test_the_status_counts_the_segments_of_a_text(server: Server) -> None:
    job = queue(server, text="The first one is here.\n\nslow\n\nThe last one is here.", normalize=False)
    wait_until(lambda: status(server, job)["segmentsDone"] == 1)
    running = status(server, job)
    assert (running["state"], running["segments"], running["progress"]) == (
        "running",
        3,
        pytest.approx(1 / 3, abs=0.001),
    )
    (server.stub.path.parent / "go").touch()
    done = ended(server, job)
    assert (done["state"], done["segments"], done["segmentsDone"], done["progress"]) == ("done", 3, 3, 1)
    (server.stub.path.parent / "go").unlink()
    short = ended(server, queue(server))
    assert (short["segments"], short["segmentsDone"]) == (None, 0)


@pytest.fixture
def go(server: Server) -> Iterator[Path]:
    """The file that lets slow texts go on, as long as it is there."""
    file = server.stub.path.parent / "go"
    yield file
    file.unlink(missing_ok=True)


PARAGRAPHS = "The first one is here.\n\nslow\n\nThe last one is here."
"""A text of which the second segment waits for the file `go`."""


def begun(server: Server, **body: Any) -> dict[str, Any]:
    """A job of PARAGRAPHS whose beginning is finished."""
    job = queue(server, text=PARAGRAPHS, normalize=False, **body)
    wait_until(lambda: bool(status(server, job)["streamUrl"]))
    return status(server, job)


def test_a_job_is_listened_to_while_it_is_made(server: Server, go: Path) -> None:
    job = begun(server)
    assert (job["secondsDone"], job["secondsPlayable"]) == (2.083, 2.083)
    assert server.client.get(f"/audio/{job['requestId']}").status_code == 409, "as ever, where no stream is asked for"
    head = server.client.head(job["streamUrl"])
    assert (head.status_code, head.headers["content-type"]) == (200, "audio/wav")
    with server.client.stream("GET", job["streamUrl"]) as response:
        assert (response.status_code, response.headers["transfer-encoding"]) == (200, "chunked")
        assert response.headers["cache-control"] == "no-store, no-transform"
        assert response.headers["content-disposition"].endswith('.wav"')
        pieces = response.iter_raw()
        heard = next(pieces)
        assert heard[:4] == b"RIFF"
        go.touch()
        heard += b"".join(pieces)
    done = ended(server, job)
    assert done["secondsDone"] == done["secondsPlayable"] == done["duration"]
    file = server.client.get(done["audioUrl"])
    assert heard[44:] == file.content[44:]
    finished = server.client.get(done["streamUrl"])
    assert finished.content == file.content
    for header in ("content-length", "etag", "accept-ranges"):
        assert finished.headers[header] == file.headers[header]


def test_a_listener_to_a_job_that_ends_without_audio_is_broken_off(server: Server) -> None:
    job = begun(server)

    def listen() -> None:
        with server.client.stream("GET", job["streamUrl"]) as response:
            for _ in response.iter_raw():
                server.client.delete(f"/queue/{job['requestId']}")

    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
        listen()
    assert server.client.get(job["streamUrl"]).status_code == 409
    wait_until(lambda: "a stream was broken off: the job is cancelled" in server.log.read_text())


def test_a_listener_who_leaves_changes_nothing(server: Server, go: Path) -> None:
    job = begun(server)
    with server.client.stream("GET", job["streamUrl"]) as response:
        assert next(response.iter_raw())
    go.touch()
    assert ended(server, job)["state"] == "done"
    assert "Traceback" not in server.log.read_text()


def test_what_cannot_be_streamed(server: Server, go: Path) -> None:
    job = begun(server)
    path = f"/audio/{job['requestId']}?stream="
    assert server.client.get(f"{path}yes").json()["error"]["param"] == "stream"
    assert ask(server.url, f"GET {path}true HTTP/1.0\r\n\r\n".encode()).status == 409, "it knows no chunks"
    assert server.client.get("/audio/unknown?stream=true").status_code == 404
    go.touch()
    short = ended(server, queue(server))
    assert server.client.get(short["streamUrl"]).content[:4] == b"RIFF"


def test_a_job_leaves_out_segments_that_cannot_be_spoken_unless_all_are(server: Server) -> None:
    done = ended(server, queue(server, text="unspeakable\n\nThis can be spoken.", normalize=False))
    assert (done["state"], done["segments"], done["duration"]) == (
        "done",
        2,
        pytest.approx(100_000 / 48_000, abs=0.001),
    )
    failed = ended(server, queue(server, text="unspeakable\n\nunspeakable", normalize=False))
    assert (failed["state"], failed["error"]["code"]) == ("failed", "unspeakable")


def test_a_jobs_text_may_be_longer_than_a_requests() -> None:
    long = "Hello there. " * 4000
    with serve_stub(jobs_mib=200) as server:
        assert server.client.post("/tts", json={"text": long}).json()["error"]["code"] == "text_too_long"
        refused = server.client.post("/queue", json={"text": long})
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "audio_too_large")
        assert "a job may take 100 MiB: send it in parts" in refused.json()["error"]["message"]
        slow = server.client.post("/queue", json={"text": long[:15_000], "speed": 0.25})
        assert slow.status_code == 413
        assert "ask for opus or mp3" in slow.json()["error"]["message"]
        assert server.client.post("/queue", json={"text": long[:15_000], "format": "opus"}).status_code == 202
        # Escaped, as other clients send it: the body is larger than an answer's may be.
        escaped = json.dumps({"text": "\u00e4h " * 60_000, "normalize": False})
        refused = server.client.post("/queue", content=escaped, headers={"Content-Type": "application/json"})
        assert refused.json()["error"]["code"] == "audio_too_large"
        assert server.client.post("/queue", json={"text": "a" * 200_001}).json()["error"]["code"] == "text_too_long"


def test_formats_and_parameters_are_those_of_tts(server: Server) -> None:
    done = ended(server, queue(server, format="mp3", seed=3))
    audio = server.client.get(done["audioUrl"])
    assert (done["mimeType"], audio.headers["content-type"]) == ("audio/mpeg", "audio/mpeg")
    assert audio.headers["content-disposition"].endswith('.mp3"')


def test_audio_is_served_in_ranges_and_with_an_etag(server: Server) -> None:
    url = ended(server, queue(server))["audioUrl"]
    whole = server.client.get(url)
    assert whole.headers["accept-ranges"] == "bytes"
    part = server.client.get(url, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, whole.content[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(whole.content)}"
    outside = server.client.get(url, headers={"Range": f"bytes={10**9}-"})
    assert (outside.status_code, outside.json()["error"]["code"]) == (416, "range_not_satisfiable")
    assert outside.headers["content-range"] == f"bytes */{len(whole.content)}"
    for ignored in ("bytes=9-2", "bytes=", "lines=1-2", "bytes=a-b", f"bytes={'9' * 5000}-"):
        response = server.client.get(url, headers={"Range": ignored})
        assert (response.status_code, response.content) == (200, whole.content), ignored
    etag = whole.headers["etag"]
    for tags in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        again = server.client.get(url, headers={"If-None-Match": tags})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == etag
    assert server.client.get(url, headers={"If-None-Match": '"x"'}).status_code == 200
    assert server.client.head(url).headers["content-length"] == str(len(whole.content))


def test_an_idempotency_key_makes_one_job_of_two_requests(server: Server) -> None:
    first = queue(server, idempotencyKey="order-1")
    assert queue(server, idempotencyKey="order-1")["requestId"] == first["requestId"]
    by_header = server.client.post(
        "/queue", json={"text": "Hello.", "character": "default"}, headers={"Idempotency-Key": "order-1"}
    )
    assert by_header.json()["requestId"] == first["requestId"]
    other = server.client.post("/queue", json={"text": "Another text.", "idempotencyKey": "order-1"})
    assert other.status_code == 409
    assert other.json()["error"]["code"] == "idempotency_key_reused"


def test_a_batch_is_accepted_whole_or_not_at_all(server: Server) -> None:
    lines = [{"text": f"Text {number}.", "userId": str(number)} for number in range(5)]
    body = "\n".join(map(json.dumps, lines)) + "\n\n"
    response = server.client.post("/queue/batch", content=body, headers={"Content-Type": "application/x-ndjson"})
    assert response.status_code == 202
    jobs = response.json()["jobs"]
    assert [job["position"] for job in jobs] == sorted(job["position"] for job in jobs)
    assert [ended(server, job)["userId"] for job in jobs] == list("01234")

    broken = body.replace('"text": "Text 3."', '"text": "!?"')
    refused = server.client.post("/queue/batch", content=broken, headers={"Content-Type": "application/x-ndjson"})
    assert refused.status_code == 400
    assert refused.json()["error"]["message"].startswith("line 4: text: ")


@pytest.mark.parametrize(
    ("content", "media_type", "status_code", "message"),
    [
        (b"", "application/x-ndjson", 400, "the body is empty"),
        (b'{"text": "A."}\nnonsense', "application/x-ndjson", 400, "line 2: the body is not JSON"),
        (b'{"text": "A."}\n[]', "application/jsonl", 400, "line 2: the body must be a JSON object"),
        (b'{"text": "A."}', "text/plain", 415, "JSON lines"),
        (b'{"text": "A."}' * 700_000, "application/x-ndjson", 413, "larger than"),
    ],
)
def test_invalid_batches(server: Server, content: bytes, media_type: str, status_code: int, message: str) -> None:
    response = server.client.post("/queue/batch", content=content, headers={"Content-Type": media_type})
    assert response.status_code == status_code
    assert message in response.json()["error"]["message"]


def test_batches_and_event_streams_are_limited() -> None:
    limits = {"max_batch_lines": 3, "event_streams_per_caller": 2, "event_streams": 2, "request_timeout": 1}
    with serve_stub(**limits) as server, ExitStack() as streams:
        lines = b"\n".join([b'{"text": "slow"}'] * 3)
        headers = {"Content-Type": "application/x-ndjson"}
        accepted = server.client.post("/queue/batch", content=lines, headers=headers)
        assert accepted.status_code == 202
        refused = server.client.post("/queue/batch", content=lines + b"\n{", headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "body_too_large")
        url = accepted.json()["jobs"][-1]["statusUrl"]
        events = {"Accept": "text/event-stream"}
        first = streams.enter_context(server.client.stream("GET", url, headers=events))
        second = server.client.stream("GET", url, headers=events)
        assert (first.status_code, second.__enter__().status_code) == (200, 200)
        refused = server.client.get(url, headers=events)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_streams")
        assert "retry-after" in refused.headers
        listener = url.replace("status", "audio") + "?stream=true"
        assert server.client.get(listener).status_code == 429
        second.__exit__(None, None, None)
        wait_until(lambda: _opens(server, url))
        waited = server.client.get(listener)
        assert (waited.status_code, waited.json()["error"]["code"]) == (409, "job_not_done")


def _opens(server: Server, url: str) -> bool:
    with server.client.stream("GET", url, headers={"Accept": "text/event-stream"}) as stream:
        return stream.status_code == 200


def test_invalid_jobs_are_refused_at_once(server: Server) -> None:
    for body, param in (({"text": "!?"}, "text"), ({"text": "A.", "character": "nobody"}, "character")):
        response = server.client.post("/queue", json=body)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == param
    response = server.client.post("/queue", json={"text": "A.", "webhook": "https://example.org/"})
    assert "CHORUS_WEBHOOK_SECRET" in response.json()["error"]["message"]
    response = server.client.post("/queue", json={"text": "A.", "idempotencyKey": ""})
    assert response.json()["error"]["param"] == "idempotencyKey"
    unknown = server.client.post("/queue", json={"text": "A.", "user": 1})
    assert "userId, webhook, idempotencyKey" in unknown.json()["error"]["message"]


def test_a_job_that_cannot_be_synthesized_fails_with_a_reason(server: Server) -> None:
    failed = ended(server, queue(server, text="unspeakable"))
    assert (failed["state"], failed["attempts"], failed["ready"]) == ("failed", 1, False)
    assert failed["error"]["code"] == "unspeakable"
    assert failed["audioUrl"] is None
    audio = server.client.get(f"/audio/{failed['requestId']}")
    assert audio.status_code == 409


def test_a_failed_attempt_is_repeated_after_a_pause(server: Server) -> None:
    failed = ended(server, queue(server, text="fail"))
    assert (failed["state"], failed["attempts"]) == ("failed", 2)
    assert failed["error"]["code"] == "synthesis_failed"


def test_a_job_that_a_full_worker_refused_is_done_later(server: Server) -> None:
    assert ended(server, queue(server, text="full"))["state"] == "done"


def test_cancelling(server: Server) -> None:
    running, waiting = queue(server, text="slow"), queue(server, text="slow")
    wait_until(lambda: status(server, running)["state"] == "running")
    assert 0 <= status(server, running)["progress"] < 1
    assert status(server, waiting)["position"] in (0, 1)
    for job in (waiting, running):
        response = server.client.delete(f"/queue/{job['requestId']}")
        assert (response.status_code, response.json()["state"]) == (200, "cancelled")
    wait_until(lambda: not server.stub.state().in_flight)
    assert server.client.delete(f"/queue/{running['requestId']}").status_code == 200


def test_a_job_that_is_done_is_deleted_with_its_audio(server: Server) -> None:
    done = ended(server, queue(server))
    deleted = server.client.delete(f"/queue/{done['requestId']}")
    assert (deleted.status_code, deleted.json()["state"]) == (200, "done")
    for url in (done["statusUrl"], done["audioUrl"]):
        assert server.client.get(url).status_code == 404
    assert server.client.delete(f"/queue/{done['requestId']}").status_code == 404


def test_an_unknown_job_is_404_everywhere(server: Server) -> None:
    for method, path in (("GET", "/status/x"), ("GET", "/audio/x"), ("DELETE", "/queue/x")):
        response = server.client.request(method, path)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "job_not_found")


def test_an_event_is_made_once_for_all_streams_of_a_job() -> None:
    events = StatusEvents()
    view = JobStatusView(stored_job(1), 3, 2.5)
    event = events.of(view, OTHER_URL)
    assert event.startswith("event: status\ndata: {")
    assert '"position": 3' in event
    assert events.of(view, OTHER_URL) is event
    assert events.of(view, "http://elsewhere") != event
    assert '"position": 2' in events.of(replace(view, position=2), OTHER_URL)


def test_the_status_as_server_sent_events(server: Server) -> None:
    job = queue(server, text="full", seed=9)
    states = []
    with server.client.stream("GET", job["statusUrl"], headers={"Accept": "text/event-stream"}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("data: "):
                states.append(json.loads(line.removeprefix("data: "))["state"])
    assert states[-1] == "done"
    assert set(states) <= {"queued", "running", "done"}


@pytest.mark.parametrize(("share", "status_code", "code"), [(1, 503, "jobs_full"), (0.5, 429, "jobs_share_full")])
def test_the_queue_is_bounded_and_each_callers_part_of_it(share: float, status_code: int, code: str) -> None:
    with serve_stub(jobs_limit=2, jobs_caller_share=share) as server:
        running = [queue(server, text="slow") for _ in range(1)]
        wait_until(lambda: status(server, running[0])["state"] == "running")
        bodies = "\n".join(json.dumps({"text": "slow"}) for _ in range(5))
        response = server.client.post("/queue/batch", content=bodies, headers={"Content-Type": "application/jsonl"})
        assert (response.status_code, error_code(response)) == (status_code, code)
        assert int(response.headers["retry-after"]) >= 1


def batch(server: Server, count: int, headers: dict[str, str] | None = None) -> httpx.Response:
    bodies = "\n".join(json.dumps({"text": "slow"}) for _ in range(count))
    media_type = {"Content-Type": "application/jsonl"}
    return server.client.post("/queue/batch", content=bodies, headers=media_type | (headers or {}))


def test_each_line_of_a_batch_is_a_request() -> None:
    with serve_stub(rate_requests_per_minute=5) as server:
        assert batch(server, 4).headers["ratelimit-remaining"] == "1"
        assert batch(server, 2).status_code == 429
        refused = batch(server, 6)
        assert "send fewer at once" in refused.json()["error"]["message"]
        assert server.client.post("/queue", json={"text": "A."}).status_code == 202


def test_a_key_belongs_to_its_jobs_and_not_its_name(tmp_path: Any) -> None:
    from balancer.access.api_keys import ApiKey, digest_of, write_keys

    file, secrets = tmp_path / "keys.json", ("the-first-key-of-shop", "the-second-key-of-shop")
    first, second = ({"X-API-Key": secret} for secret in secrets)
    write_keys(file, [ApiKey(name="shop", digest=digest_of(secrets[0]))])
    body = {"text": "Hello.", "idempotencyKey": "order-1"}
    with serve_stub(keys_file=file) as server:
        job = server.client.post("/queue", json=body, headers=first).json()
        write_keys(file, [ApiKey(name="shop", digest=digest_of(secrets[1]))])
        assert server.client.get(job["statusUrl"], headers=second).status_code == 404
        assert server.client.post("/queue", json=body, headers=second).json()["requestId"] != job["requestId"]


def test_interactive_requests_go_before_jobs(server: Server, go: Path) -> None:
    texts = ["slow", *(f"Text number {number}." for number in range(40))]
    lines = "\n".join(json.dumps({"text": text}) for text in texts)
    jobs = server.client.post("/queue/batch", content=lines, headers={"Content-Type": "application/jsonl"}).json()
    wait_until(lambda: bool(server.stub.state().in_flight))
    assert server.stub.last_utterance().text == "slow"
    with ThreadPoolExecutor(1) as clients:
        request = clients.submit(server.client.post, "/tts", json={"text": "Hello."})
        wait_until(lambda: server.client.get("/health").json()["queueDepths"]["interactive"] == 1)
        go.touch()
        assert request.result().status_code == 200
    for job in jobs["jobs"]:
        assert ended(server, job)["state"] == "done"
    assert server.stub.last_utterance().text != "Hello.", "the request did not wait for all jobs"


def test_jobs_are_counted_in_metrics(server: Server) -> None:
    ended(server, queue(server))
    wait_until(lambda: 'chorus_jobs_kept{state="done"}' in server.client.get("/metrics").text)
    assert 'chorus_jobs_total{outcome="done"}' in server.client.get("/metrics").text


def test_jobs_survive_a_restart(tmp_path: Any) -> None:
    settings = {"data_dir": tmp_path / "data"}
    with serve_stub(**settings) as server:
        done = ended(server, queue(server))
        waiting = [queue(server, text="slow", userId=str(number)) for number in range(3)]
    with serve_stub(**settings) as server:
        (server.stub.path.parent / "go").touch()
        again = server.client.get(f"/status/{done['requestId']}").json()
        assert again["state"] == "done"
        assert server.client.get(f"/audio/{done['requestId']}").content[:4] == b"RIFF"
        for job in waiting:
            wait_until(lambda: server.client.get(f"/status/{job['requestId']}").json()["state"] == "done")  # noqa: B023


def urls(status: dict[str, Any]) -> set[str]:
    """The addresses of the server that the URLs in a status response begin with."""
    found = [url for url in (status["statusUrl"], status["audioUrl"]) if url is not None]
    assert found
    return {url.rpartition("/")[0].rpartition("/")[0] for url in found}


def test_urls_follow_the_address_of_each_request(server: Server) -> None:
    job = queue(server)
    path = f"/status/{job['requestId']}"
    assert urls(ended(server, job)) == {server.url}
    assert urls(server.client.get(path, headers=OTHER).json()) == {OTHER_URL}
    assert urls(server.client.get(path).json()) == {server.url}


def test_urls_of_a_cancelled_job_follow_the_request(server: Server) -> None:
    job = queue(server, text="hang")
    cancelled = server.client.delete(f"/queue/{job['requestId']}", headers=OTHER).json()
    assert urls(cancelled) == {OTHER_URL}


def test_urls_in_events_follow_the_request(server: Server) -> None:
    path = f"/status/{queue(server, text='full', seed=11)['requestId']}"
    with server.client.stream("GET", path, headers={"Accept": "text/event-stream"} | OTHER) as stream:
        events = [json.loads(line.removeprefix("data: ")) for line in stream.iter_lines() if line.startswith("data: ")]
    assert events[-1]["state"] == "done"
    assert set.union(*map(urls, events)) == {OTHER_URL}


def test_urls_of_a_replayed_job_follow_the_request(server: Server) -> None:
    body = {"text": "Hello.", "idempotencyKey": "order-2"}
    first = server.client.post("/queue", json=body)
    replayed = server.client.post("/queue", json=body, headers=OTHER)
    assert replayed.json()["requestId"] == first.json()["requestId"]
    expected = f"{OTHER_URL}/status/{first.json()['requestId']}"
    assert replayed.headers["location"] == replayed.json()["statusUrl"] == expected


def test_urls_follow_a_restart_on_another_port(tmp_path: Any) -> None:
    with serve_stub(data_dir=tmp_path / "data") as server:
        before = server.url
        job = queue(server)
        ended(server, job)
    with serve_stub(data_dir=tmp_path / "data") as server:
        assert server.url != before
        status = server.client.get(f"/status/{job['requestId']}").json()
        assert urls(status) == {server.url}
        assert server.client.get(status["audioUrl"]).content[:4] == b"RIFF"


def test_urls_follow_a_trusted_proxy() -> None:
    https = OTHER | {"X-Forwarded-Proto": "https"}
    with serve_stub(trusted_proxies="127.0.0.0/8", allowed_hosts=OTHER_HOST) as server:
        path = f"/status/{queue(server)['requestId']}"
        assert urls(server.client.get(path, headers=https).json()) == {OTHER_URL.replace("http:", "https:")}
    with serve_stub(allowed_hosts=OTHER_HOST) as server:
        path = f"/status/{queue(server)['requestId']}"
        assert urls(server.client.get(path, headers=https).json()) == {OTHER_URL}, "this proxy is not trusted"


def test_a_job_is_hidden_from_other_keys() -> None:
    keys = "first-key-of-the-tests,second-key-of-the-tests"
    with serve_stub(api_keys=keys) as server:
        first, second = ({"X-API-Key": key} for key in keys.split(","))
        job = server.client.post("/queue", json={"text": "Hello."}, headers=first).json()
        assert server.client.get(job["statusUrl"]).status_code == 401
        assert server.client.get(job["statusUrl"], headers=second).status_code == 404
        assert server.client.delete(f"/queue/{job['requestId']}", headers=second).status_code == 404
        assert server.client.get(job["statusUrl"], headers=first).status_code == 200


def test_urls_begin_with_the_public_url() -> None:
    with serve_stub(public_url="https://speech.example.org/api/") as server:
        job = queue(server)
        assert job["statusUrl"] == f"https://speech.example.org/api/status/{job['requestId']}"
        status = server.client.get(f"/status/{job['requestId']}", headers={"Host": OTHER_HOST}).json()
        assert status["statusUrl"] == job["statusUrl"]


def test_only_trusted_proxies_set_the_address_of_the_client() -> None:
    def statuses(**settings: Any) -> list[int]:
        with serve_stub(rate_requests_per_minute=1, **settings) as server:
            headers = ({"X-Forwarded-For": f"203.0.113.{number}"} for number in range(3))
            return [
                server.client.post("/tts", json={"text": "A."}, headers=forwarded).status_code for forwarded in headers
            ]

    assert statuses() == [200, 429, 429]
    assert statuses(trusted_proxies="127.0.0.0/8") == [200, 200, 200]


def test_rate_limits_are_sent_in_headers() -> None:
    with serve_stub(rate_requests_per_minute=2) as server:
        responses = [server.client.post("/tts-json", json={"text": "A."}) for _ in range(3)]
        assert [response.headers["ratelimit-remaining"] for response in responses] == ["1", "0", "0"]
        refused = responses[-1]
        assert refused.status_code == 429
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert server.client.post("/queue", json={"text": "A."}).status_code == 429
        assert 'chorus_refusals_total{reason="rate_limit_exceeded"} 2.0' in server.client.get("/metrics").text
        assert server.client.get("/health").status_code == 200


def error_code(response: httpx.Response) -> str:
    code: str = response.json()["error"]["code"]
    return code


def test_a_key_allows_only_its_voices(tmp_path: Any) -> None:
    from balancer.access.api_keys import ApiKey, digest_of, write_keys

    file = tmp_path / "keys.json"
    secret = "a-key-that-allows-little"
    write_keys(file, [ApiKey(name="shop", digest=digest_of(secret), voices=("ada",))])
    with serve_stub(keys_file=file) as server:
        headers = {"Authorization": f"Bearer {secret}"}
        assert server.client.post("/tts", json={"text": "A."}).status_code == 401
        for path in ("/tts", "/tts-json", "/queue"):
            refused = server.client.post(path, json={"text": "A."}, headers=headers)
            assert (refused.status_code, error_code(refused)) == (403, "voice_not_allowed")

        def answers(status: int) -> bool:
            return server.client.post("/tts", json={"text": "A."}, headers=headers).status_code == status

        write_keys(file, [ApiKey(name="shop", digest=digest_of(secret))])
        wait_until(lambda: answers(200))
        write_keys(file, [])
        wait_until(lambda: answers(401))
        assert server.client.get("/metrics").status_code == 401
        assert server.client.get("/docs").status_code == 200
