"""The client against stub workers, and against servers that violate the contract."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from balancer.fleet.worker_client import UtteranceRefusedError, WorkerClient, WorkerFullError, WorkerLostError
from tests.support.harness import start_stub
from tests.support.unix_server import unix_server
from tests.support.worker_state import worker_state
from worker.contract import EndOfUtterance, FrameKind, Utterance, encode_frame
from worker.unix_listener import listen


def utterance(text: str = "Hello.") -> Utterance:
    return Utterance(id="u-1", text=text, voice="default", seed=1)


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[WorkerClient]:
    client = WorkerClient(path, state_timeout=30)
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def answering(run_dir: Path, answer: bytes) -> AsyncIterator[WorkerClient]:
    """The client of a server that gives every request the same answer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        await reader.read()

    async with unix_server(run_dir / "s", serve), connected(run_dir / "s") as client:
        yield client


def http(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def end(samples: int, utterance_id: str = "u-1") -> bytes:
    message = EndOfUtterance(id=utterance_id, samples=samples, compute_seconds=0.5)
    return encode_frame(FrameKind.END, message.model_dump_json().encode())


async def test_a_complete_utterance(run_dir: Path) -> None:
    with start_stub(run_dir, audio_bytes=5000) as stub:
        async with connected(stub.path) as client:
            for _ in range(3):
                result = await client.synthesize(utterance())
                assert (result.pcm, result.samples) == (bytes(5000), 2500)


async def test_pcm_frames_are_joined(run_dir: Path) -> None:
    body = encode_frame(FrameKind.PCM, b"abcd") + encode_frame(FrameKind.PCM, b"ef") + end(3)
    async with answering(run_dir, http(body)) as client:
        assert (await client.synthesize(utterance())).pcm == b"abcdef"


async def test_pieces_are_handed_on_as_they_come(run_dir: Path) -> None:
    body = encode_frame(FrameKind.PCM, b"abcd") + encode_frame(FrameKind.PCM, b"ef") + end(3)
    pieces: list[bytes] = []
    async with answering(run_dir, http(body)) as client:
        assert (await client.synthesize(utterance(), on_pcm=pieces.append)).pcm == b"abcdef"
    assert pieces == [b"abcd", b"ef"]


async def test_a_piece_that_ends_within_a_sample_is_not_handed_on(run_dir: Path) -> None:
    body = encode_frame(FrameKind.PCM, b"abc") + encode_frame(FrameKind.PCM, b"d") + end(2)
    pieces: list[bytes] = []
    async with answering(run_dir, http(body)) as client:
        with pytest.raises(WorkerLostError, match="within a sample"):
            await client.synthesize(utterance(), on_pcm=pieces.append)
    assert pieces == []


async def test_a_worker_that_dies(run_dir: Path) -> None:
    with start_stub(run_dir) as stub:
        async with connected(stub.path) as client:
            with pytest.raises(WorkerLostError) as lost:
                await client.synthesize(utterance("die"))
            assert (lost.value.dead, lost.value.accepted, lost.value.unresponsive) == (True, True, False)
            with pytest.raises(WorkerLostError) as lost:
                await client.synthesize(utterance())
            assert (lost.value.dead, lost.value.accepted) == (True, False)


async def test_a_worker_that_dies_before_the_first_audio(run_dir: Path) -> None:
    with start_stub(run_dir) as stub:
        async with connected(stub.path) as client:
            synthesis = asyncio.create_task(client.synthesize(utterance("hang")))
            while not (await client.state()).in_flight:
                await asyncio.sleep(0.01)
            stub.process.kill()
            with pytest.raises(WorkerLostError) as lost:
                await synthesis
    assert lost.value.accepted


async def test_a_body_without_its_closing_frame(run_dir: Path) -> None:
    with start_stub(run_dir) as stub:
        async with connected(stub.path) as client:
            with pytest.raises(WorkerLostError, match="without its closing frame") as lost:
                await client.synthesize(utterance("truncate"))
    assert lost.value.accepted


@pytest.mark.parametrize("pcm", [b"", b"ab", b"abcdef"])
async def test_audio_whose_length_differs_from_its_closing_frame(run_dir: Path, pcm: bytes) -> None:
    async with answering(run_dir, http((encode_frame(FrameKind.PCM, pcm) if pcm else b"") + end(2))) as client:
        with pytest.raises(WorkerLostError, match=f"{len(pcm)} bytes.* 2 samples"):
            await client.synthesize(utterance())


@pytest.mark.parametrize(
    "body", [b"Q\0\0\0\1x", encode_frame(FrameKind.END, b"{}"), encode_frame(FrameKind.ERROR, b"?")]
)
async def test_bytes_that_are_no_frames(run_dir: Path, body: bytes) -> None:
    async with answering(run_dir, http(body)) as client:
        with pytest.raises(WorkerLostError, match="violates the contract") as lost:
            await client.synthesize(utterance())
    assert lost.value.accepted
    assert not lost.value.dead


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (encode_frame(FrameKind.PCM, bytes(2**20)) * 8, "longer than any speech of the text"),
        (encode_frame(FrameKind.PCM, b"ab") + end(1, "u-0"), "the answer to another utterance, 'u-0'"),
        (encode_frame(FrameKind.PCM, b"ab") + end(1) + encode_frame(FrameKind.PCM, b"ab"), "goes on after its closing"),
        (encode_frame(FrameKind.PCM, b"ab") + end(1) + end(1), "goes on after its closing frame"),
        (encode_frame(FrameKind.ERROR, b'{"code": "internal", "message": "of another"}'), "another utterance"),
        (encode_frame(FrameKind.END, b'{"id": "u-1", "samples": 0, "compute_seconds": NaN}'), "compute_seconds"),
    ],
)
async def test_an_answer_that_breaks_a_bound(run_dir: Path, body: bytes, reason: str) -> None:
    async with answering(run_dir, http(body)) as client:
        with pytest.raises(WorkerLostError, match=reason) as lost:
            await client.synthesize(utterance(), sample_rate=24_000)
    assert lost.value.odd


@pytest.mark.parametrize("frame", [encode_frame(FrameKind.PCM, bytes(2**16)), encode_frame(FrameKind.PCM, b"")])
async def test_audio_without_end_takes_no_more_memory_than_speech_may(run_dir: Path, frame: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n")
        while True:
            writer.write(frame * (2**20 // len(frame)))
            await writer.drain()

    tracemalloc.start()
    async with unix_server(run_dir / "s", serve), connected(run_dir / "s") as client:
        with pytest.raises(WorkerLostError, match=r"longer than any speech|without audio"):
            await client.synthesize(utterance(), sample_rate=24_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * 2**20


@pytest.mark.parametrize("status", ["200 OK", "500 No"])
async def test_a_state_without_end(run_dir: Path, status: str) -> None:
    async with answering(run_dir, http(b" " * 2 * 2**20, status)) as client:
        with pytest.raises(WorkerLostError, match="longer than") as lost:
            await client.state()
    assert lost.value.odd


async def test_a_refusal_without_end(run_dir: Path) -> None:
    async with answering(run_dir, http(b" " * 2 * 2**20, "429 Full")) as client:
        with pytest.raises(WorkerLostError, match="refusal is longer than"):
            await client.synthesize(utterance())


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-1", '"fast"'])
async def test_a_state_with_a_number_that_is_none(run_dir: Path, number: str) -> None:
    state = worker_state().model_dump_json().replace('"speed":null', f'"speed":{number}')
    async with answering(run_dir, http(state.encode())) as client:
        with pytest.raises(WorkerLostError, match="speed: ") as lost:
            await client.state()
    assert lost.value.odd


@pytest.mark.parametrize("together", [True, False])
async def test_a_second_answer_closes_the_connection_and_is_reported(run_dir: Path, together: bool) -> None:
    """It comes with the first answer, or while the connection is idle."""
    answer = http(encode_frame(FrameKind.PCM, b"ab") + end(1))
    sent = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer + answer if together else answer)
        await sent.wait()
        writer.write(answer)
        await reader.read()

    async with unix_server(run_dir / "s", serve), connected(run_dir / "s") as client:
        reported = asyncio.Event()
        client.on_unrequested = reported.set
        assert (await client.synthesize(utterance())).pcm == b"ab"
        sent.set()
        async with asyncio.timeout(30):
            await reported.wait()
        with pytest.raises(WorkerLostError, match="another utterance"):
            await client.synthesize(Utterance(id="u-2", text="Next.", voice="default", seed=1))


async def test_a_refusal_that_is_no_message(run_dir: Path) -> None:
    async with answering(run_dir, http(b"Internal Server Error", "500 No")) as client:
        with pytest.raises(WorkerLostError, match="violates the contract") as lost:
            await client.synthesize(utterance())
    assert not lost.value.accepted


@pytest.mark.parametrize(("text", "code"), [("fail", "internal"), ("unspeakable", "unspeakable")])
async def test_an_utterance_that_is_refused(run_dir: Path, text: str, code: str) -> None:
    with start_stub(run_dir) as stub:
        async with connected(stub.path) as client:
            with pytest.raises(UtteranceRefusedError) as refused:
                await client.synthesize(utterance(text))
    assert refused.value.error.code == code


async def test_a_full_worker(run_dir: Path) -> None:
    with start_stub(run_dir) as stub:
        async with connected(stub.path) as client:
            with pytest.raises(WorkerFullError, match="slots are taken"):
                await client.synthesize(utterance("full"))


async def test_cancelling_frees_the_slot(run_dir: Path) -> None:
    with start_stub(run_dir) as stub:
        async with connected(stub.path) as client:
            synthesis = asyncio.create_task(client.synthesize(utterance("hang")))
            while not (await client.state()).in_flight:
                await asyncio.sleep(0.01)
            synthesis.cancel()
            async with asyncio.timeout(30):
                while (await client.state()).in_flight:
                    await asyncio.sleep(0.01)


async def test_a_worker_drains(run_dir: Path) -> None:
    with start_stub(run_dir) as stub:
        async with connected(stub.path) as client:
            synthesis = asyncio.create_task(client.synthesize(utterance("slow")))
            while not (await client.state()).in_flight:
                await asyncio.sleep(0.01)
            await client.drain()
            with pytest.raises(WorkerFullError, match="draining"):
                await client.synthesize(utterance())
            (run_dir / "go").touch()
            assert (await synthesis).pcm
        assert await asyncio.to_thread(stub.process.wait, 30) == 0


async def test_a_worker_that_cannot_drain(run_dir: Path) -> None:
    async with answering(run_dir, http(b"", "404 Not Found")) as client:
        with pytest.raises(WorkerLostError, match="404"):
            await client.drain()


async def test_a_state_of_another_version(run_dir: Path) -> None:
    async with answering(run_dir, http(b"{}")) as client:
        with pytest.raises(WorkerLostError, match="does not match this version") as lost:
            await client.state()
    assert not lost.value.dead
    assert not lost.value.unresponsive


async def test_a_socket_whose_process_does_not_accept(run_dir: Path) -> None:
    with listen(run_dir / "s"):
        client = WorkerClient(run_dir / "s", state_timeout=0.05)
        with pytest.raises(WorkerLostError, match="no answer within") as lost:
            await client.state()
        await client.close()
    assert lost.value.unresponsive
    assert not lost.value.dead


async def test_a_socket_whose_queue_is_full(run_dir: Path) -> None:
    with listen(run_dir / "s") as listener:
        listener.listen(0)
        client = WorkerClient(run_dir / "s", state_timeout=0.2)
        probes = [asyncio.create_task(client.state()) for _ in range(4)]
        errors = await asyncio.gather(*probes, return_exceptions=True)
        await client.close()
    assert all(isinstance(error, WorkerLostError) and error.unresponsive and not error.dead for error in errors)
