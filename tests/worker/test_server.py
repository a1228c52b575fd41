"""Real worker processes: confined as their layout says, answering while they work, and gone without a trace."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from tests.support.harness import TIMEOUT, wait_until
from tests.support.real_worker import CPU, SENTENCE, Worker, start_worker, synthesize, utterance, worker_options
from worker.contract import EndOfUtterance, FrameDecoder, FrameKind, Phase, UtteranceError, WorkerState
from worker.unix_listener import listen

CPUS = sorted(os.sched_getaffinity(0))

LONG = (SENTENCE * 40)[:4000]
"""Two seconds of work and more."""

ENDLESS = LONG.replace(".", "")
"""The same in pieces of half a minute of audio each."""


@pytest.fixture
async def client(worker: Worker) -> AsyncIterator[httpx.AsyncClient]:
    async with worker.client() as client:
        yield client
        await until_idle(client)


async def state(client: httpx.AsyncClient) -> WorkerState:
    return WorkerState.model_validate_json((await client.get("/state")).raise_for_status().content)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not await condition():
            await asyncio.sleep(0.005)


async def until_idle(client: httpx.AsyncClient) -> None:
    async def idle() -> bool:
        return not (await state(client)).in_flight

    await until(idle)


@asynccontextmanager
async def begun(worker: Worker, text: str, id: str = "u") -> AsyncIterator[tuple[FrameDecoder, AsyncIterator[bytes]]]:  # noqa: A002
    """An utterance whose first audio has come; the block's end closes its connection."""
    async with (
        worker.client() as client,
        client.stream("POST", "/synthesize", content=utterance(text, id).model_dump_json()) as answer,
    ):
        assert answer.status_code == 200
        chunks = answer.aiter_bytes()
        decoder = FrameDecoder()
        frames: list[tuple[FrameKind, bytes]] = []
        while not frames:
            frames = decoder.feed(await anext(chunks))
        assert frames[0][0] is FrameKind.PCM
        yield decoder, chunks


async def refusal(client: httpx.AsyncClient, status: int, content: str) -> UtteranceError:
    answer = await client.post("/synthesize", content=content)
    assert answer.status_code == status
    return UtteranceError.model_validate_json(answer.content)


# Confined


def affinities(pid: int) -> set[frozenset[int]]:
    """Of every thread of the process, native ones included."""
    return {frozenset(os.sched_getaffinity(thread.id)) for thread in psutil.Process(pid).threads()}


def test_every_thread_is_on_the_cores_of_the_layout(worker: Worker) -> None:
    assert affinities(worker.process.pid) == {frozenset([CPU])}
    report = worker.state()
    assert (report.cores, report.threads, report.index) == ((CPU,), 1, 0)
    assert report.pid == worker.process.pid


def test_a_second_worker_takes_its_own_place_of_the_layout(worker: Worker, run_dir: Path) -> None:
    options = worker_options(run_dir, index=1, layout=((CPU,), (CPUS[-1],)), threads=3)
    with start_worker(options) as other:
        report = other.await_ready()
        assert (report.cores, report.threads, report.index) == ((CPUS[-1],), 3, 1)
        assert affinities(other.process.pid) == {frozenset([CPUS[-1]])}
        widened = psutil.Process(other.process.pid).num_threads()
    # One thread for the loop, one for the model, one for the voices' files, one that onnxruntime always has: no pool on
    # one thread adds to it.
    alone = psutil.Process(worker.process.pid).num_threads()
    assert alone <= 4
    assert widened > alone


def test_the_socket_is_the_users_alone(worker: Worker) -> None:
    mode = worker.path.lstat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    assert [entry.name for entry in worker.path.parent.iterdir()] == ["worker-0.sock"]


# From the start to ready


async def test_it_refuses_until_it_is_ready(run_dir: Path, tmp_path: Path) -> None:
    # The model does not load before it has been asked for: a busy machine may have it ready by then.
    asked = tmp_path / "asked"
    (tmp_path / "hibari.py").write_text(f"""if True:
        import pathlib
        import sys
        import time
        while not pathlib.Path({str(asked)!r}).exists():
            time.sleep(0.005)
        sys.path.remove({str(tmp_path)!r})
        del sys.modules["hibari"]
        import hibari  # the package itself, in the place of this module
    """)
    phases: list[Phase] = []
    refused = set()
    with start_worker(worker_options(run_dir), PYTHONPATH=str(tmp_path)) as worker:
        async with worker.client() as client:
            async with asyncio.timeout(TIMEOUT):
                while not phases or phases[-1] is not Phase.READY:
                    answer = await client.post("/synthesize", content=utterance("Hi.").model_dump_json())
                    if answer.status_code != 200:
                        refused.add((answer.status_code, UtteranceError.model_validate_json(answer.content).code))
                    phases.append((await state(client)).phase)
                    asked.touch()
            assert (await synthesize(client, utterance("Hi.")))[-1][0] is FrameKind.END
    assert refused == {(503, "not_ready")}
    order = list(Phase)
    assert phases == sorted(phases, key=order.index)
    assert phases[0] is Phase.STARTING


# Speaking


async def test_a_whole_utterance_and_its_closing_frame(client: httpx.AsyncClient) -> None:
    before = await state(client)
    frames = await synthesize(client, utterance(f"{SENTENCE} Hello there."))
    assert [kind for kind, _ in frames] == [FrameKind.PCM] * (len(frames) - 1) + [FrameKind.END]
    end = EndOfUtterance.model_validate_json(frames[-1][1])
    pcm = b"".join(payload for _, payload in frames[:-1])
    assert end.samples == len(pcm) // 2 > 24_000
    assert np.abs(np.frombuffer(pcm, "<i2")).max() > 1000
    after = await state(client)
    assert after.done == before.done + 1
    assert after.progress >= before.progress + len(frames) - 1
    assert after.voices_prepared == ("default",)
    assert after.speed is not None
    assert after.speed > 1


async def test_the_same_utterance_again_is_the_same(client: httpx.AsyncClient) -> None:
    first = await synthesize(client, utterance(SENTENCE))
    await synthesize(client, utterance("Something else.", seed=3))
    assert (await synthesize(client, utterance(SENTENCE)))[:-1] == first[:-1]
    assert (await synthesize(client, utterance(SENTENCE, seed=8)))[:-1] != first[:-1]


async def test_an_alias_is_the_same_voice(client: httpx.AsyncClient) -> None:
    assert (await synthesize(client, utterance(voice="alloy")))[:-1] == (await synthesize(client, utterance()))[:-1]


async def test_an_unspeakable_text(client: httpx.AsyncClient) -> None:
    [(kind, payload)] = await synthesize(client, utterance("你好"))
    assert kind is FrameKind.ERROR
    assert UtteranceError.model_validate_json(payload).code == "unspeakable"


@pytest.mark.parametrize("text", [LONG, ENDLESS, "camelCase-and/" * 357], ids=["long", "endless", "no-space"])
async def test_state_answers_at_once_while_the_model_works(
    worker: Worker, client: httpx.AsyncClient, text: str
) -> None:
    # An event loop that waited for the model would answer between two of its calls: with other progress each time.
    within_a_call = 0
    for _ in range(10):  # a busy machine answers less often while one text is spoken
        speaking = asyncio.ensure_future(speak_alone(worker, utterance(text, "long").model_dump_json()))
        before: int | None = None
        while not speaking.done():
            report = await state(client)
            if report.in_flight:
                assert report.in_flight == ("long",)
                within_a_call += report.progress == before
                before = report.progress
            await asyncio.sleep(0.002)
        assert (await speaking)[-1][0] is FrameKind.END
        if within_a_call > 20:
            break
    assert within_a_call > 20


async def speak_alone(worker: Worker, content: str) -> list[tuple[FrameKind, bytes]]:
    async with worker.client() as client:
        answer = await client.post("/synthesize", content=content)
        return FrameDecoder().feed(answer.raise_for_status().content)


# Refusing


async def test_full(worker: Worker, client: httpx.AsyncClient) -> None:
    async with begun(worker, LONG, id="first"):
        assert (await refusal(client, 429, utterance(id="second").model_dump_json())).code == "full"
        duplicate = await refusal(client, 400, utterance(id="first").model_dump_json())
        assert (duplicate.code, duplicate.message) == ("invalid", "utterance 'first' is already in flight")
        assert (await state(client)).in_flight == ("first",)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{", "Invalid JSON"),
        (utterance(voice="../../etc/passwd").model_dump_json(), "there are: default"),
        (utterance(parameters={"warmth": 1}).model_dump_json(), "engine 'hibari' has no parameter 'warmth'"),
    ],
)
async def test_what_does_not_fit(client: httpx.AsyncClient, body: str, said: str) -> None:
    error = await refusal(client, 400, body)
    assert error.code == "invalid"
    assert said in error.message


# Hanging up


@pytest.mark.parametrize("text", [LONG, ENDLESS], ids=["long", "endless"])
async def test_hanging_up_frees_the_slot(worker: Worker, client: httpx.AsyncClient, text: str) -> None:
    first = await state(client)
    await synthesize(client, utterance(text))
    before = await state(client)

    async with begun(worker, text):
        left = await state(client)
        assert left.in_flight == ("u",)
    await until_idle(client)
    after = await state(client)
    # In steps of its work: a busy machine makes each of them longer.
    assert after.progress - left.progress < (before.progress - first.progress) / 2
    assert after.done == before.done
    assert (await synthesize(client, utterance()))[-1][0] is FrameKind.END


# Ending


def ended(worker: Worker) -> int:
    wait_until(lambda: worker.process.poll() is not None)
    assert worker.process.returncode is not None
    return worker.process.returncode


async def test_sigterm_finishes_what_is_in_flight(run_dir: Path) -> None:
    with start_worker(worker_options(run_dir)) as worker:
        worker.await_ready()
        async with worker.client() as idle:
            await state(idle)
            async with begun(worker, LONG) as (decoder, chunks):
                worker.process.send_signal(signal.SIGTERM)
                frames = [frame async for chunk in chunks for frame in decoder.feed(chunk)]
                assert frames[-1][0] is FrameKind.END
                assert len(frames) > 10
                assert not worker.listens()
            assert ended(worker) == 0


async def test_sigterm_while_the_model_works_for_nobody(run_dir: Path) -> None:
    with start_worker(worker_options(run_dir)) as worker:
        worker.await_ready()
        async with begun(worker, ENDLESS):
            pass
        worker.process.send_signal(signal.SIGTERM)
        assert ended(worker) == 0


def test_sigterm_while_the_model_loads(run_dir: Path, tmp_path: Path) -> None:
    # A model that loads over and over: whenever the signal comes, its thread is inside native code or about to be.
    model = files("hibari") / "assets" / "oov.onnx"
    loading = tmp_path / "loading"
    (tmp_path / "hibari.py").write_text(f"""if True:
        import pathlib
        import onnxruntime
        class Hibari:
            def __init__(self, threads):
                while True:
                    onnxruntime.InferenceSession({str(model)!r})
                    pathlib.Path({str(loading)!r}).touch()
    """)
    with start_worker(worker_options(run_dir), PYTHONPATH=str(tmp_path)) as worker:
        wait_until(loading.exists)
        assert worker.state().phase is Phase.STARTING
        worker.process.send_signal(signal.SIGTERM)
        assert ended(worker) == 0


async def test_killed_in_the_middle(run_dir: Path) -> None:
    with start_worker(worker_options(run_dir)) as worker:
        worker.await_ready()
        async with begun(worker, LONG) as (decoder, chunks):
            worker.process.kill()
            kinds = set()
            with suppress(httpx.RemoteProtocolError, httpx.ReadError):
                async for chunk in chunks:
                    kinds |= {kind for kind, _ in decoder.feed(chunk)}
            assert kinds <= {FrameKind.PCM}, "the utterance looks whole"
        assert ended(worker) == -signal.SIGKILL
        assert worker.path.is_socket()
        assert not worker.listens()
        # The next process takes the place of the socket that the dead one left.
        with start_worker(worker_options(run_dir)) as heir:
            assert heir.path == worker.path
            assert heir.await_ready().pid != worker.process.pid
            async with heir.client() as client:
                assert (await synthesize(client, utterance()))[-1][0] is FrameKind.END
            assert os.listdir(run_dir) == [heir.path.name]  # noqa: PTH208 - pathlib is not for async functions


async def test_a_drained_worker_finishes_what_it_has_and_ends(run_dir: Path) -> None:
    with start_worker(worker_options(run_dir)) as worker:
        await asyncio.to_thread(worker.await_ready)
        async with begun(worker, LONG) as (decoder, chunks), worker.client() as client:
            assert (await client.post("/drain")).status_code == 202
            assert (await state(client)).phase is Phase.DRAINING
            error = await refusal(client, 503, utterance(id="next").model_dump_json())
            assert (error.code, error.message) == ("not_ready", "the worker is draining")
            kinds = [kind async for chunk in chunks for kind, _ in decoder.feed(chunk)]
            assert kinds[-1] is FrameKind.END
        await asyncio.to_thread(wait_until, lambda: worker.process.poll() is not None)
        assert worker.process.returncode == 0


async def test_a_worker_that_is_starting_is_drained_at_once(run_dir: Path) -> None:
    with start_worker(worker_options(run_dir)) as worker:
        async with worker.client() as client:
            await client.post("/drain")
        await asyncio.to_thread(wait_until, lambda: worker.process.poll() is not None)
        assert worker.process.returncode == 0
        assert not (run_dir / "worker-0.starts").exists()


def test_sockets_that_dead_processes_left_are_cleared_away(run_dir: Path) -> None:
    (run_dir / "worker-0.sock.4711").touch()
    (run_dir / "worker-1.sock.4712").touch()
    with listen(run_dir / "worker-0.sock"):
        assert {path.name for path in run_dir.iterdir()} == {"worker-0.sock", "worker-1.sock.4712"}
