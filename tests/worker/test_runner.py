"""The runner over a real engine that the tests hold and let go: one thread, one utterance, nothing mixed."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.services.held_engine import PIECE_SAMPLES, HeldEngine
from tests.services.real_worker import utterance
from voices.registry import Registry, Voice
from worker.contract import EndOfUtterance, FrameDecoder, FrameKind, Phase, Utterance, UtteranceError
from worker.engines.base import Cancellation, Engine, ModelUnavailableError, Samples, VoiceSource
from worker.runner import RefusedError, Run, Runner, to_pcm

VOICES = Registry(
    {
        voice.name: voice
        for voice in (
            Voice(name="default", engine="*", aliases=("alloy",)),
            Voice(name="other", engine="held"),
            Voice(name="broken", engine="*"),
            Voice(name="cloned", reference="clip.wav", synthetic=True),
            Voice(name="foreign", engine="hibari"),
        )
    },
    Path("/voices"),
)

PATIENCE = 20.0


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.001)


@asynccontextmanager
async def started(engine: Engine, voices: Registry = VOICES) -> AsyncIterator[Runner]:
    runner = Runner(lambda: engine, voices)
    runner.start()
    await until(lambda: runner.phase is Phase.READY)
    yield runner


@pytest.fixture
def engine() -> HeldEngine:
    return HeldEngine()


@pytest.fixture
async def runner(engine: HeldEngine) -> AsyncIterator[Runner]:
    async with started(engine) as runner:
        yield runner
        engine.go()


async def collect(run: Run) -> list[tuple[FrameKind, bytes]]:
    decoder = FrameDecoder()
    async with asyncio.timeout(PATIENCE):
        return [frame async for chunk in run.frames() for frame in decoder.feed(chunk)]


def numbers(frames: list[tuple[FrameKind, bytes]]) -> list[int]:
    """What the engine spoke: the number in each piece."""
    spoken: list[int] = []
    for kind, payload in frames[:-1]:
        assert kind is FrameKind.PCM
        piece = set(np.frombuffer(payload, "<i2").tolist())
        assert len(piece) == 1, "a piece of two utterances"
        spoken += piece
    return spoken


def error(frames: list[tuple[FrameKind, bytes]]) -> UtteranceError:
    kind, payload = frames[-1]
    assert kind is FrameKind.ERROR
    return UtteranceError.model_validate_json(payload)


def refused(runner: Runner, asked: Utterance) -> UtteranceError:
    with pytest.raises(RefusedError) as refusal:
        runner.submit(asked)
    return refusal.value.error


# From the slot to the closing frame


async def test_a_whole_utterance(runner: Runner) -> None:
    run = runner.submit(utterance("3 1 2"))
    assert runner.in_flight == ("u",)
    frames = await collect(run)
    assert numbers(frames) == [3, 1, 2]
    kind, payload = frames[-1]
    assert kind is FrameKind.END
    end = EndOfUtterance.model_validate_json(payload)
    assert end.samples == 3 * PIECE_SAMPLES
    assert end.compute_seconds > 0
    assert not runner.in_flight
    assert (runner.done, runner.progress) == (1, 3)


async def test_audio_comes_as_it_is_made(runner: Runner, engine: HeldEngine) -> None:
    engine.hold()
    frames = runner.submit(utterance("3 1")).frames()
    engine.step()
    async with asyncio.timeout(PATIENCE):
        assert (await anext(frames))[:1] == b"P"
    assert (runner.in_flight, runner.progress) == (("u",), 1)
    engine.go()
    async with asyncio.timeout(PATIENCE):
        assert [chunk[:1] async for chunk in frames] == [b"P", b"E"]


async def test_the_slot_is_free_when_the_closing_frame_comes(runner: Runner) -> None:
    for number in range(50):
        await collect(runner.submit(utterance("1", id=str(number))))
        assert runner.in_flight == ()


async def test_the_speed_is_an_average(runner: Runner) -> None:
    assert runner.speed is None
    await collect(runner.submit(utterance("1")))
    first = runner.speed
    assert first is not None
    assert first > 0
    frames = await collect(runner.submit(utterance("2")))
    newest = PIECE_SAMPLES / 24_000 / json.loads(frames[-1][1])["compute_seconds"]
    assert runner.speed == pytest.approx(0.8 * first + 0.2 * newest)


# Refusals


async def test_a_full_runner_refuses(runner: Runner, engine: HeldEngine) -> None:
    engine.hold()
    run = runner.submit(utterance("1", id="first"))
    assert refused(runner, utterance("2", id="second")).code == "full"
    engine.go()
    assert numbers(await collect(run)) == [1]
    assert numbers(await collect(runner.submit(utterance("2", id="second")))) == [2]


async def test_an_id_that_is_under_way_is_refused(runner: Runner, engine: HeldEngine) -> None:
    engine.hold()
    run = runner.submit(utterance("1"))
    refusal = refused(runner, utterance("2"))
    assert (refusal.code, refusal.message) == ("invalid", "utterance 'u' is under way already")
    engine.go()
    assert numbers(await collect(run)) == [1]


async def test_an_unknown_voice_is_refused_naming_those_there_are(runner: Runner) -> None:
    refusal = refused(runner, utterance(voice="nobody"))
    assert refusal.code == "invalid"
    assert refusal.message == "there is no voice 'nobody'; there are: broken, cloned, default, foreign, other"


@pytest.mark.parametrize("voice", ["cloned", "foreign"])
async def test_a_voice_of_another_engine_is_refused(runner: Runner, voice: str) -> None:
    refusal = refused(runner, utterance(voice=voice))
    assert (refusal.code, refusal.message) == ("invalid", f"engine 'held' cannot speak voice {voice!r}")


async def test_an_unknown_parameter_is_refused_by_name(runner: Runner) -> None:
    refusal = refused(runner, utterance(parameters={"warmth": 0.1, "cold": 1}))
    assert (refusal.code, refusal.message) == ("invalid", "engine 'held' has no parameter 'cold'")


async def test_a_refusal_takes_no_slot(runner: Runner) -> None:
    refused(runner, utterance(voice="nobody"))
    assert runner.in_flight == ()
    assert numbers(await collect(runner.submit(utterance("1", parameters={"warmth": 0.1})))) == [1]


# One thread, one utterance


async def test_one_utterance_at_a_time_on_one_thread() -> None:
    engine = HeldEngine(slots=20)
    async with started(engine) as runner:
        engine.hold()
        runs = [runner.submit(utterance(f"{number} {number}", id=str(number))) for number in range(20)]
        assert refused(runner, utterance("1", id="one too many")).code == "full"
        assert len(runner.in_flight) == 20
        engine.go()
        for _ in range(40):
            engine.step()
        spoken = await asyncio.gather(*map(collect, runs))
    assert [numbers(frames) for frames in spoken] == [[number, number] for number in range(20)]
    assert engine.begun[1:] == [str(number) for number in range(20)]
    assert engine.most_inside == 1
    assert len(engine.threads) == 1
    assert threading.get_ident() not in engine.threads


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 999), min_size=1, max_size=6), min_size=1, max_size=8))
def test_frames_of_concurrent_runs_never_mix(texts: list[list[int]]) -> None:
    async def speak_all() -> list[list[tuple[FrameKind, bytes]]]:
        async with started(HeldEngine(slots=len(texts))) as runner:
            runs = [runner.submit(utterance(" ".join(map(str, text)), id=str(at))) for at, text in enumerate(texts)]
            return await asyncio.gather(*map(collect, runs))

    spoken = asyncio.run(speak_all())
    assert [numbers(frames) for frames in spoken] == texts
    samples = [json.loads(frames[-1][1])["samples"] for frames in spoken]
    assert samples == [PIECE_SAMPLES * len(text) for text in texts]


# Cancellation


async def test_cancelled_before_the_start() -> None:
    engine = HeldEngine(slots=2)
    async with started(engine) as runner:
        engine.hold()
        first = runner.submit(utterance("1", id="first"))
        second = runner.submit(utterance("2", id="second"))
        second.cancellation.request()
        engine.go()
        assert numbers(await collect(first)) == [1]
        await until(lambda: runner.in_flight == ())
    assert "second" not in engine.begun
    assert runner.done == 1


async def test_cancelled_in_the_middle(runner: Runner, engine: HeldEngine) -> None:
    engine.hold()
    run = runner.submit(utterance("1 2 3 4"))
    engine.step()
    await until(lambda: runner.progress == 1)
    run.cancellation.request()
    assert runner.in_flight == ("u",), "the slot is not free before the engine has stopped"
    engine.step()
    await until(lambda: runner.in_flight == ())
    assert (runner.done, runner.progress) == (0, 1)
    assert engine.closed[-1] == "u"
    engine.go()
    assert numbers(await collect(runner.submit(utterance("7", id="next")))) == [7]


class DeafEngine(HeldEngine):
    """Never looks at its cancellation."""

    def synthesize(self, utterance: Utterance, source: VoiceSource, cancellation: Cancellation) -> Iterator[Samples]:
        yield from super().synthesize(utterance, source, Cancellation())


async def test_an_engine_that_never_looks_is_stopped_between_pieces() -> None:
    engine = DeafEngine()
    async with started(engine) as runner:
        engine.hold()
        warm_up = engine.pieces
        run = runner.submit(utterance("1 2 3 4"))
        engine.step()
        await until(lambda: runner.progress == 1)
        run.cancellation.request()
        engine.go()
        await until(lambda: runner.in_flight == ())
    assert engine.pieces - warm_up == 2
    assert runner.done == 0


async def test_cancelled_at_the_last_piece_is_not_done(runner: Runner, engine: HeldEngine) -> None:
    engine.hold()
    run = runner.submit(utterance("1"))
    await until(lambda: engine.begun[-1] == "u")
    run.cancellation.request()
    engine.go()
    await until(lambda: runner.in_flight == ())
    assert runner.done == 0


# What goes wrong in the engine


async def test_an_unspeakable_text(runner: Runner) -> None:
    closing = error(await collect(runner.submit(utterance("1 unspeakable"))))
    assert (closing.code, closing.message) == ("unspeakable", "there is nothing to say")
    assert (runner.in_flight, runner.done) == ((), 0)


async def test_a_defect_of_the_engine_is_told_without_its_details_and_survived(
    runner: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    frames = await collect(runner.submit(utterance("1 explode 2")))
    assert numbers(frames) == [1]
    assert error(frames).code == "internal"
    assert "secret" not in error(frames).message
    assert "a secret of the engine" in caplog.text
    assert (runner.in_flight, runner.done, runner.phase) == ((), 0, Phase.READY)
    assert numbers(await collect(runner.submit(utterance("5")))) == [5]


async def test_a_voice_that_cannot_be_prepared(runner: Runner, engine: HeldEngine) -> None:
    for _ in range(2):
        assert error(await collect(runner.submit(utterance("1", voice="broken")))).code == "internal"
    assert "broken" not in runner.voices_prepared
    assert [source.voice.name for source in engine.prepared].count("broken") == 2
    assert numbers(await collect(runner.submit(utterance("5")))) == [5]


# Loading and warming up


async def test_phases_from_the_start_to_ready() -> None:
    engine = HeldEngine()
    engine.hold()
    loading = threading.Event()

    def load() -> HeldEngine:
        assert loading.wait(PATIENCE)
        return engine

    runner = Runner(load, VOICES)
    assert runner.phase is Phase.STARTING
    runner.start()
    refusal = refused(runner, utterance())
    assert (refusal.code, refusal.message) == ("not_ready", "the worker is starting")
    assert runner.slots == 1
    loading.set()
    await until(lambda: engine.begun == ["warm-up"])
    await until(lambda: runner.phase is Phase.WARMING)
    assert refused(runner, utterance()).message == "the worker is warming"
    assert engine.closed == []
    engine.go()
    for _ in range(100):
        engine.step()
    await until(lambda: runner.phase is Phase.READY)
    assert engine.closed == ["warm-up"]
    assert (runner.done, runner.progress, runner.speed) == (0, 0, None), "the warm-up counts for nothing"
    assert numbers(await collect(runner.submit(utterance("4")))) == [4]
    assert len(engine.threads) == 1


async def test_voices_are_prepared_once(runner: Runner, engine: HeldEngine) -> None:
    assert list(runner.voices_prepared) == ["default"]
    for number, voice in enumerate(["default", "other", "alloy", "other", "default"]):
        await collect(runner.submit(utterance("1", id=str(number), voice=voice)))
    assert [source.voice.name for source in engine.prepared] == ["default", "other"]
    assert list(runner.voices_prepared) == ["default", "other"]


async def test_a_cloned_default_voice_warms_up_with_its_clip() -> None:
    voice = Voice(name="default", reference="clip.wav", synthetic=True)
    engine = HeldEngine()
    async with started(engine, Registry({"default": voice}, Path("/voices"))):
        assert engine.prepared == [VoiceSource(voice, Path("/voices/default/clip.wav"))]


async def failure(load: Callable[[], Engine], voices: Registry = VOICES) -> str:
    runner = Runner(load, voices)
    runner.start()
    async with asyncio.timeout(PATIENCE):
        await runner.failed()
    assert runner.phase is Phase.FAILED
    assert runner.reason is not None
    refusal = refused(runner, utterance())
    assert (refusal.code, refusal.message) == ("not_ready", runner.reason)
    return runner.reason


async def test_a_model_that_is_not_there() -> None:
    def load() -> HeldEngine:
        raise ModelUnavailableError("no weights in /models; run: make weights")

    assert await failure(load) == "no weights in /models; run: make weights"


async def test_a_model_that_fails_to_load_in_a_way_nobody_expected(caplog: pytest.LogCaptureFixture) -> None:
    def load() -> HeldEngine:
        raise OSError("libgomp.so.1: cannot open shared object file")

    assert await failure(load) == "OSError: libgomp.so.1: cannot open shared object file"
    assert "Traceback" in caplog.text


class ColdEngine(HeldEngine):
    """Fails at its first words."""

    def synthesize(self, utterance: Utterance, source: VoiceSource, cancellation: Cancellation) -> Iterator[Samples]:
        raise RuntimeError("out of memory")


async def test_a_warm_up_that_fails() -> None:
    assert await failure(ColdEngine) == "RuntimeError: out of memory"


async def test_without_a_default_voice_there_is_nothing_to_warm_up_with() -> None:
    voices = Registry({"other": Voice(name="other", engine="*")}, Path("/voices"))
    assert "there is no voice 'default'; there are: other" in await failure(HeldEngine, voices)


async def test_a_runner_that_works_has_not_failed(runner: Runner) -> None:
    await collect(runner.submit(utterance("explode")))
    failed = asyncio.ensure_future(runner.failed())
    await collect(runner.submit(utterance("1")))
    assert not failed.done()
    failed.cancel()


def test_the_model_thread_outlives_its_loop_quietly(capfd: pytest.CaptureFixture[str]) -> None:
    engine = HeldEngine()

    async def leave() -> None:
        async with started(engine) as runner:
            engine.hold()
            runner.submit(utterance("1 2"))
            await until(lambda: engine.begun[-1] == "u")

    asyncio.run(leave())
    engine.go()
    engine.step()
    deadline = time.monotonic() + PATIENCE
    while engine.closed[-1] != "u":
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert capfd.readouterr().err == ""


# Samples on the wire


def test_samples_on_the_wire() -> None:
    samples = np.array([0.0, 1.0, -1.0, 0.5, 2.0, -7.0, 1 / 32767], np.float32)
    assert np.frombuffer(to_pcm(samples), "<i2").tolist() == [0, 32767, -32767, 16384, 32767, -32767, 1]
    assert to_pcm(np.zeros(0, np.float32)) == b""
