"""Listeners to a job that is being made, with real stores and encoders: they hear what its file will have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from balancer.audio.buffers import MemoryBuffer
from balancer.audio.encoder import encode
from balancer.audio.formats import AudioFormat
from balancer.audio.held_audio import HeldAudio
from balancer.audio.joining import JoinedFiles
from balancer.audio.stream_encoder import MAX_HEADER_BYTES, longer_header
from balancer.errors import JobNotDoneError, JobNotFoundError
from balancer.jobs import job_stream as module
from balancer.jobs.feed import Watcher
from balancer.jobs.job import Job
from balancer.jobs.job_stream import JobStream, JobStreams
from balancer.jobs.outage_log import OutageLog
from balancer.jobs.service import JobStatusView
from balancer.jobs.sqlite.segments import SqliteSegments
from balancer.jobs.sqlite.store import SqliteJobStore
from balancer.jobs.store import JobResult, JobStore, JobStoreError
from balancer.metrics import Metrics
from balancer.requests.speech_request import RequestContext, SpeechRequest
from balancer.requests.validation import RequestValidator
from balancer.settings.limits import MemorySettings
from balancer.settings.speech import PauseSettings
from balancer.speech.encoder_pool import EncoderPool
from balancer.speech.segment_requests import pauses_around
from balancer.speech.service import SpeechService
from balancer.text.segments import Boundary, Segment
from tests.support.harness import ROOT, TIMEOUT
from tests.support.jobs import ERROR, Opened, found, job
from voices.registry import Registry
from worker.cards import CARDS

RATE = 24_000
PAUSES = PauseSettings()
SEGMENTS = [
    Segment("One.", Boundary.SENTENCE, leading_silence=0.2),
    Segment("...", Boundary.SENTENCE),
    Segment("Two.", Boundary.PARAGRAPH),
    Segment("Three.", Boundary.CLAUSE, silence=0.5),
]
UNSPEAKABLE = 1


class Speech:
    """Stub of the speech service: every text has the SEGMENTS, by the segmentation `digest`."""

    async def segmentation(self, _: SpeechRequest, __: RequestContext) -> tuple[list[Segment], str]:
        return SEGMENTS, "digest"


def pcm(number: int) -> MemoryBuffer:
    """Segment `number`: a tone of its own between faint noise, nothing for the one that cannot be spoken."""
    if number == UNSPEAKABLE:
        return MemoryBuffer(b"")
    times = np.arange(RATE + 3000 * number) / RATE
    tone = 8000 * np.sin(2 * np.pi * 100 * (number + 2) * times)
    silence = np.zeros(2000 * (number + 1))
    return MemoryBuffer(np.concatenate([silence, tone, silence]).astype("<i2").tobytes())


def whole(folder: Path, audio_format: AudioFormat, speed: float) -> bytes:
    """The file of the job, as the speech service makes it of the kept segments."""
    folder.mkdir()
    spoken = [number for number in range(len(SEGMENTS)) if number != UNSPEAKABLE]
    files = [folder / str(number) for number in spoken]
    for number, file in zip(spoken, files, strict=True):
        file.write_bytes(bytes(pcm(number)))
    output = BytesIO()
    joined = JoinedFiles(files, pauses_around([SEGMENTS[number] for number in spoken], PAUSES), RATE)
    encode(joined, RATE, audio_format, speed, output)
    return output.getvalue()


def behind_header(content: bytes, audio_format: AudioFormat, speed: float, *, streamed: bool) -> bytes:
    return content[MAX_HEADER_BYTES + (0 if streamed else longer_header(RATE, audio_format, speed)) :]


class Making:
    """A job that is made by hand, of which a listener is told."""

    def __init__(self, store: JobStore, job: Job) -> None:
        self.store = store
        self.job = job
        self.watcher = Watcher(job.id, "listener")

    async def keep(self, *numbers: int) -> None:
        for number in numbers:
            assert await self.store.segments.keep(self.job, number, pcm(number))
        await self.tell()

    async def finish(self, audio: bytes) -> None:
        assert await self.store.claims.finish(self.job, JobResult(MemoryBuffer(audio), 1.0, "digest"))
        await self.tell()

    async def tell(self) -> None:
        self.watcher.show(JobStatusView(found(await self.store.get(self.job.id)), 0, 1.0))


async def making(store: JobStore, audio_format: AudioFormat = AudioFormat.WAV, speed: float = 1.0) -> Making:
    body = {"text": "Any text.", "format": audio_format.value, "speed": speed}
    await store.add([job(1, body=body, format=audio_format.value)])
    begun = await store.segments.begin(found(await store.claims.claim_next()), "digest", len(SEGMENTS))
    assert begun is not None
    return Making(store, begun[0])


@pytest.fixture
def held() -> HeldAudio:
    return HeldAudio(MemorySettings())


async def listen(made: Making, held: HeldAudio) -> JobStream:
    validator = RequestValidator(CARDS["hibari"], Registry.load(ROOT / "voices"), 1000)
    encoders = EncoderPool(held, limit=10)
    streams = JobStreams(
        made.store,
        cast(SpeechService, Speech()),
        validator,
        held,
        encoders,
        Metrics(engine="hibari"),
        sample_rate=RATE,
        pauses=PAUSES,
        outage=OutageLog(),
    )
    return await streams.open(found(await made.store.get("job-1")), made.watcher, "listener")


async def rest(stream: AsyncIterator[bytes]) -> bytes:
    async with asyncio.timeout(TIMEOUT):
        return b"".join([piece async for piece in stream])


@pytest.mark.parametrize("speed", [1.0, 1.25])
@pytest.mark.parametrize("audio_format", AudioFormat)
@pytest.mark.parametrize("done_early", [False, True])
async def test_a_listener_hears_the_very_file(
    tmp_path: Path, held: HeldAudio, audio_format: AudioFormat, speed: float, *, done_early: bool
) -> None:
    file = whole(tmp_path / "parts", audio_format, speed)
    store = SqliteJobStore(tmp_path / "jobs")
    made = await making(store, audio_format, speed)
    await made.keep(0)
    stream = await listen(made, held)
    heard = await anext(stream)
    await made.keep(1, 2, 3)
    if done_early:  # the rest of the segments is gone, and comes from the file
        await made.finish(file)
    heard += await rest(stream)
    await stream.aclose()
    assert behind_header(heard, audio_format, speed, streamed=True) == behind_header(
        file, audio_format, speed, streamed=False
    )
    await store.aclose()


async def test_segments_are_heard_as_they_come(opened: Opened, tmp_path: Path, held: HeldAudio) -> None:
    file = whole(tmp_path / "parts", AudioFormat.PCM, 1.0)
    async with opened() as store:
        made = await making(store, AudioFormat.PCM)
        await made.keep(2, 0)
        stream = await listen(made, held)
        heard = b""
        async with asyncio.timeout(TIMEOUT):
            while len(heard) < len(pcm(0)) - 30_000:
                heard += await anext(stream)
        waiting = asyncio.create_task(rest(stream))
        await made.keep(1, 3)
        assert heard + await waiting == file


async def test_who_comes_late_or_is_slow_hears_all(opened: Opened, tmp_path: Path, held: HeldAudio) -> None:
    file = whole(tmp_path / "parts", AudioFormat.WAV, 1.0)
    async with opened() as store:
        made = await making(store)
        await made.keep(0, 1, 2, 3)
        late, slow = await listen(made, held), await listen(made, held)
        assert (await rest(late))[MAX_HEADER_BYTES:] == file[MAX_HEADER_BYTES:]
        await made.finish(file)
        assert (await rest(slow))[MAX_HEADER_BYTES:] == file[MAX_HEADER_BYTES:]


async def test_another_process_goes_on_with_what_is_kept(opened: Opened, tmp_path: Path, held: HeldAudio) -> None:
    file = whole(tmp_path / "parts", AudioFormat.WAV, 1.0)
    async with opened() as store:
        made = await making(store)
        await made.keep(0, 1, 2)
        await store.claims.release(made.job)
    async with opened() as store:
        again = await store.segments.begin(found(await store.claims.claim_next()), "digest", len(SEGMENTS))
        made = Making(store, again[0])
        await made.tell()
        stream = await listen(made, held)
        waiting = asyncio.create_task(rest(stream))
        await made.keep(3)
        assert (await waiting)[MAX_HEADER_BYTES:] == file[MAX_HEADER_BYTES:]


@pytest.mark.parametrize("how", ["cancelled", "failed", "another segmentation", "another file", "deleted"])
async def test_a_stream_without_an_end_is_broken_off(opened: Opened, tmp_path: Path, held: HeldAudio, how: str) -> None:
    async with opened() as store:
        made = await making(store)
        await made.keep(0)
        stream = await listen(made, held)
        match how:
            case "cancelled":
                await store.cancel("job-1")
            case "failed":
                await store.claims.fail(made.job, ERROR)
            case "another segmentation":
                await store.segments.begin(made.job, "other", 4)
            case "another file":
                await made.finish(whole(tmp_path / "parts", AudioFormat.WAV, 1.5))
            case "deleted":
                await made.finish(whole(tmp_path / "parts", AudioFormat.WAV, 1.0))
                await store.delete("job-1")
        if how != "deleted":
            await made.tell()
        with pytest.raises(JobNotFoundError if how == "deleted" else JobNotDoneError):
            await rest(stream)
        await stream.aclose()


async def test_a_retried_job_is_waited_for(opened: Opened, tmp_path: Path, held: HeldAudio) -> None:
    file = whole(tmp_path / "parts", AudioFormat.WAV, 1.0)
    async with opened() as store:
        made = await making(store)
        await made.keep(0)
        stream = await listen(made, held)
        anew = made.job.without_segments()
        await store.claims.retry_later(anew, ERROR, 0.0)
        await made.tell()
        waiting = asyncio.create_task(rest(stream))
        await asyncio.sleep(0)
        begun = await store.segments.begin(found(await store.claims.claim_next()), "digest", len(SEGMENTS))
        made.job = begun[0]
        await made.keep(0, 1, 2, 3)
        assert (await waiting)[MAX_HEADER_BYTES:] == file[MAX_HEADER_BYTES:]


async def test_a_segment_that_cannot_be_read_yet_is_read_again(
    tmp_path: Path, held: HeldAudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Segments(SqliteSegments):
        failures = 0

        async def read(self, job: Job, number: int) -> bytes | None:
            self.failures += 1
            if self.failures == 1:
                raise JobStoreError("the disk hangs")
            return None if self.failures == 2 else await super().read(job, number)

    class Store(SqliteJobStore):
        def __init__(self, folder: Path) -> None:
            super().__init__(folder)
            self.segments = Segments(self._folder)

    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    store = Store(tmp_path / "jobs")
    made = await making(store)
    await made.keep(0, 1, 2, 3)
    stream = await listen(made, held)
    file = whole(tmp_path / "parts", AudioFormat.WAV, 1.0)
    assert (await rest(stream))[MAX_HEADER_BYTES:] == file[MAX_HEADER_BYTES:]
    await store.aclose()


async def test_a_listener_holds_one_segment_and_gives_it_back(opened: Opened, tmp_path: Path, held: HeldAudio) -> None:
    async with opened() as store:
        made = await making(store)
        await made.keep(0, 1, 2, 3)
        streams = [await listen(made, held) for _ in range(3)]
        assert 0 < held.memory.taken <= 3 * len(pcm(3))
        await made.finish(whole(tmp_path / "parts", AudioFormat.WAV, 1.0))
        for stream in streams:
            await stream.aclose()
        assert held.memory.taken == 0


async def test_other_settings_have_no_stream(opened: Opened, held: HeldAudio) -> None:
    async with opened() as store:
        await store.add([job(1)])
        begun = await store.segments.begin(found(await store.claims.claim_next()), "other digest", 4)
        made = Making(store, begun[0])
        await made.keep(0)
        with pytest.raises(JobNotDoneError, match="other settings"):
            await listen(made, held)
