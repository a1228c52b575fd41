"""The worker's HTTP face, spoken to without a socket: which status each refusal has, and what a body holds."""

from __future__ import annotations

import asyncio
import mmap
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from tests.support.harness import ROOT, until
from tests.support.held_engine import PIECE_SAMPLES, HeldEngine
from tests.support.real_worker import synthesize, utterance
from voices.registry import LiveRegistry
from worker.app import STATUS, create_app
from worker.contract import EndOfUtterance, FrameKind, Phase, UtteranceError, WorkerState
from worker.engines.base import ModelUnavailableError
from worker.runner import Runner

VOICES = LiveRegistry(ROOT / "voices")

TIMEOUT = 20.0


def over(runner: Runner) -> Starlette:
    return create_app(runner, index=3, engine="hibari", threads=2)


@pytest.fixture
def engine() -> HeldEngine:
    return HeldEngine()


@pytest.fixture
async def runner(engine: HeldEngine) -> AsyncIterator[Runner]:
    runner = Runner(lambda: engine, VOICES)
    yield runner
    engine.release()


@pytest.fixture
async def client(runner: Runner) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app whose engine is ready."""
    app = over(runner)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://worker") as client,
    ):
        await until(lambda: runner.phase is Phase.READY)
        yield client


async def state(client: httpx.AsyncClient) -> WorkerState:
    return WorkerState.model_validate_json((await client.get("/state")).raise_for_status().content)


async def refusal(client: httpx.AsyncClient, status: int, content: str | bytes) -> UtteranceError:
    answer = await client.post("/synthesize", content=content)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    return UtteranceError.model_validate_json(answer.content)


async def test_state_when_idle(client: httpx.AsyncClient) -> None:
    report = await state(client)
    assert (report.index, report.pid, report.phase, report.reason) == (3, os.getpid(), Phase.READY, None)
    assert (report.engine, report.model, report.sample_rate) == ("hibari", "held/numbers", 24_000)
    assert report.cores == tuple(sorted(os.sched_getaffinity(0)))
    assert (report.threads, report.slots, report.in_flight, report.done) == (2, 1, (), 0)
    assert report.speed is None
    assert report.voices_prepared == ("default",)
    assert report.resident_bytes > 2**20
    assert 2**20 < report.shared_bytes < report.resident_bytes
    assert report.cpu_seconds > 0
    assert abs(report.started_at - time.time()) < TIMEOUT


async def test_what_is_mapped_from_files_is_shared(client: httpx.AsyncClient, tmp_path: Path) -> None:
    size = 64 * 2**20
    weights = tmp_path / "weights"
    weights.write_bytes(b"w" * size)
    before = await state(client)
    with weights.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[:: mmap.PAGESIZE]) > 0  # each page is read in
        after = await state(client)
    assert after.shared_bytes - before.shared_bytes > size / 2
    assert after.resident_bytes - after.shared_bytes < before.resident_bytes - before.shared_bytes + size / 2


async def test_state_follows_the_work(client: httpx.AsyncClient, runner: Runner, engine: HeldEngine) -> None:
    engine.hold()
    speaking = asyncio.ensure_future(synthesize(client, utterance("1 2", id="a")))
    engine.step()
    await until(lambda: engine.pieces["a"] == 1)
    report = await state(client)
    assert (report.in_flight, report.done) == (("a",), 0)
    progress = report.progress
    engine.release()
    async with asyncio.timeout(TIMEOUT):
        await speaking
    report = await state(client)
    assert (report.in_flight, report.done) == ((), 1)
    assert report.progress > progress
    assert report.speed is not None


async def test_the_body_of_an_utterance(client: httpx.AsyncClient) -> None:
    answer = await client.post("/synthesize", content=utterance("1 2").model_dump_json())
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/octet-stream")
    frames = await synthesize(client, utterance("1 2"))
    assert [kind for kind, _ in frames] == [FrameKind.PCM, FrameKind.PCM, FrameKind.END]
    assert EndOfUtterance.model_validate_json(frames[-1][1]).samples == 2 * PIECE_SAMPLES


async def test_an_unspeakable_text_ends_in_an_error_frame(client: httpx.AsyncClient) -> None:
    [(kind, payload)] = await synthesize(client, utterance("unspeakable"))
    assert kind is FrameKind.ERROR
    assert UtteranceError.model_validate_json(payload).code == "unspeakable"


@pytest.mark.parametrize(
    "body",
    [
        *["", "hello", "[]", "{}", '{"id": "1"', b"\xff\xfe", '"\\ud800"', "[" * 5000],
        utterance().model_dump_json().replace("Hello", "\\ud800"),
    ],
)
async def test_what_is_no_utterance_is_400(client: httpx.AsyncClient, body: str | bytes) -> None:
    assert (await refusal(client, 400, body)).code == "invalid"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"loudness": 3}, "loudness"),
        ({"voice": "nobody"}, "there is no voice 'nobody'; there are: default"),
        ({"parameters": {"cold": 1}}, "no parameter 'cold'"),
        ({"parameters": {"warmth": [1]}}, "parameters.warmth"),
    ],
)
async def test_what_does_not_fit_is_400_and_named(client: httpx.AsyncClient, fields: dict[str, Any], said: str) -> None:
    body = httpx.Request("POST", "http://worker", json=utterance().model_dump() | fields).content
    error = await refusal(client, 400, body)
    assert error.code == "invalid"
    assert said in error.message


async def test_a_full_worker_is_429_and_an_id_under_way_400(client: httpx.AsyncClient, engine: HeldEngine) -> None:
    engine.hold()
    speaking = asyncio.ensure_future(synthesize(client, utterance("1", id="a")))
    await until(lambda: engine.started[-1] == "a")
    assert (await refusal(client, 429, utterance("2", id="b").model_dump_json())).code == "full"
    assert "in flight" in (await refusal(client, 400, utterance("2", id="a").model_dump_json())).message
    engine.release()
    async with asyncio.timeout(TIMEOUT):
        assert (await speaking)[-1][0] is FrameKind.END


async def test_a_caller_that_goes_away_cancels(client: httpx.AsyncClient, runner: Runner, engine: HeldEngine) -> None:
    engine.hold()
    speaking = asyncio.ensure_future(synthesize(client, utterance("1 2 3", id="a")))
    engine.step()
    await until(lambda: engine.pieces["a"] == 1)
    speaking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await speaking
    engine.release()
    await until(lambda: runner.in_flight == ())
    assert (runner.done, engine.pieces["a"]) == (0, 1)


async def test_before_the_model_is_there_it_is_503(engine: HeldEngine) -> None:
    app = over(Runner(lambda: engine, VOICES))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://worker") as client:
        report = await state(client)
        assert (report.phase, report.ready, report.model, report.slots) == (Phase.STARTING, False, "hibari", 1)
        error = await refusal(client, 503, utterance().model_dump_json())
    assert (error.code, error.message) == ("not_ready", "the worker is starting")


async def test_a_model_that_does_not_load_is_503_with_the_reason() -> None:
    def load() -> HeldEngine:
        raise ModelUnavailableError("run: make weights")

    runner = Runner(load, VOICES)
    app = over(runner)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://worker") as client,
    ):
        await until(lambda: runner.phase is Phase.FAILED)
        assert (await state(client)).reason == "run: make weights"
        assert (await refusal(client, 503, utterance().model_dump_json())).message == "run: make weights"


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/synthesize", 405), ("GET", "/", 404)])
async def test_there_is_nothing_else(client: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    assert (await client.request(method, path)).status_code == status


def test_refusals_have_the_statuses_of_the_contract() -> None:
    assert STATUS == {"full": 429, "not_ready": 503, "invalid": 400}
