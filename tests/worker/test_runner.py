"""The runner over a real engine that the tests hold and let go: one thread, one utterance, nothing mixed."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.harness import until
from tests.support.held_engine import LONG_SAMPLES, PIECE_SAMPLES, HeldEngine
from tests.support.real_worker import utterance
from voices.registry import LiveRegistry
from worker.cards import EngineCard
from worker.contract import (
    MAX_PCM_FRAME_BYTES,
    EndOfUtterance,
    FrameDecoder,
    FrameKind,
    Phase,
    Utterance,
    UtteranceError,
)
from worker.crash_history import Crashes
from worker.engines.base import (
    Cancellation,
    Engine,
    ModelUnavailableError,
    Samples,
    TakeReport,
    VoiceSource,
    VoiceUnusableError,
)
from worker.runner import AcceptedUtterance, RefusedError, Runner, to_pcm

DESCRIPTIONS = {
    "default": 'engine = "*"\naliases = ["alloy"]',
    "other": 'engine = "held"',
    "broken": 'engine = "*"',
    "cloned": 'reference = "clip.wav"\nsynthetic = true',
    "foreign": 'engine = "hibari"',
}

TIMEOUT = 20.0


def folder_of(folder: Path, descriptions: dict[str, str]) -> LiveRegistry:
    for name, description in descriptions.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "voice.toml").write_text(f'name = "{name}"\n{description}\n')
        if "clip.wav" in description:
            (folder / name / "clip.wav").write_bytes(b"a clip")
    return LiveRegistry(folder)


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> LiveRegistry:
    return folder_of(tmp_path_factory.mktemp("voices"), DESCRIPTIONS)


@asynccontextmanager
async def started(engine: Engine, voices: LiveRegistry) -> AsyncIterator[Runner]:
    runner = Runner(lambda: engine, voices)
    runner.start()
    await until(lambda: runner.phase is Phase.READY)
    yield runner


class CloningEngine(HeldEngine):
    """Speaks with the voice of a clip, and keeps what it was asked to speak."""

    def __init__(self) -> None:
        super().__init__()
        self.unusable: str | None = None
        """What is wrong with every clip."""
        self.spoken: list[Utterance] = []

    @property
    def card(self) -> EngineCard:
        return super().card.model_copy(update={"clones_voices": True})

    def prepare(self, source: VoiceSource) -> None:
        super().prepare(source)
        if source.reference is not None and self.unusable is not None:
            raise VoiceUnusableError(self.unusable)

    def synthesize(self, utterance: Utterance, source: VoiceSource, cancellation: Cancellation) -> Iterator[Samples]:
        self.spoken.append(utterance)
        yield from super().synthesize(utterance, source, cancellation)


@pytest.fixture
def engine() -> HeldEngine:
    return HeldEngine()


@pytest.fixture
async def runner(engine: HeldEngine, voices: LiveRegistry) -> AsyncIterator[Runner]:
    async with started(engine, voices) as runner:
        yield runner
        engine.release()


async def collect(accepted: AcceptedUtterance) -> list[tuple[FrameKind, bytes]]:
    decoder = FrameDecoder()
    async with asyncio.timeout(TIMEOUT):
        return [frame async for chunk in accepted.frames() for frame in decoder.feed(chunk)]


def names(sources: list[VoiceSource]) -> list[str]:
    return [source.voice.name for source in sources]


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
    accepted = runner.submit(utterance("3 1 2"))
    assert runner.in_flight == ("u",)
    frames = await collect(accepted)
    assert numbers(frames) == [3, 1, 2]
    kind, payload = frames[-1]
    assert kind is FrameKind.END
    end = EndOfUtterance.model_validate_json(payload)
    assert end.samples == 3 * PIECE_SAMPLES
    assert end.compute_seconds > 0
    assert not runner.in_flight
    assert runner.done == 1
    assert runner.progress >= 3


class JudgingEngine(HeldEngine):
    """Discards a take of every utterance but `1`, and hands out a bad one of `3`."""

    def synthesize(
        self, utterance: Utterance, source: VoiceSource, cancellation: Cancellation
    ) -> Generator[Samples, None, TakeReport]:
        yield from super().synthesize(utterance, source, cancellation)
        discarded = () if utterance.text == "1" else ("loop",)
        return TakeReport(discarded, "cut" if utterance.text == "3" else None)


async def test_takes_are_told_in_the_closing_frame_and_counted(voices: LiveRegistry) -> None:
    async with started(JudgingEngine(), voices) as runner:
        told = []
        for text in ("1", "2", "3", "3"):
            _, payload = (await collect(runner.submit(utterance(text))))[-1]
            end = EndOfUtterance.model_validate_json(payload)
            told.append((end.retakes, end.flaw))
        assert told == [(0, None), (1, None), (1, "cut"), (1, "cut")]
        assert runner.retakes == {"loop": 3}
        assert runner.flawed == {"cut": 2}


async def test_audio_comes_as_it_is_made(runner: Runner, engine: HeldEngine) -> None:
    engine.hold()
    frames = runner.submit(utterance("3 1")).frames()
    engine.step()
    async with asyncio.timeout(TIMEOUT):
        assert (await anext(frames))[:1] == b"P"
    assert runner.in_flight == ("u",)
    assert runner.progress > 0
    engine.release()
    async with asyncio.timeout(TIMEOUT):
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
    accepted = runner.submit(utterance("1", id="first"))
    assert refused(runner, utterance("2", id="second")).code == "full"
    engine.release()
    assert numbers(await collect(accepted)) == [1]
    assert numbers(await collect(runner.submit(utterance("2", id="second")))) == [2]


async def test_an_id_that_is_under_way_is_refused(runner: Runner, engine: HeldEngine) -> None:
    engine.hold()
    accepted = runner.submit(utterance("1"))
    refusal = refused(runner, utterance("2"))
    assert (refusal.code, refusal.message) == ("invalid", "utterance 'u' is already in flight")
    engine.release()
    assert numbers(await collect(accepted)) == [1]


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


# One thread


async def test_utterances_of_several_slots_take_turns_on_one_thread(voices: LiveRegistry) -> None:
    engine = HeldEngine(slots=20)
    async with started(engine, voices) as runner:
        engine.hold()
        runs = [runner.submit(utterance(f"{number} {number}", id=str(number))) for number in range(20)]
        assert refused(runner, utterance("1", id="one too many")).code == "full"
        assert len(runner.in_flight) == 20
        engine.release()
        for _ in range(40):
            engine.step()
        spoken = await asyncio.gather(*map(collect, runs))
    assert [numbers(frames) for frames in spoken] == [[number, number] for number in range(20)]
    assert engine.started[1:] == [str(number) for number in range(20)]
    assert engine.max_concurrent == 20
    assert len(engine.threads) == 1
    assert threading.get_ident() not in engine.threads


async def test_with_one_slot_the_next_utterance_begins_when_the_last_has_ended(
    engine: HeldEngine, runner: Runner
) -> None:
    for number in range(3):
        assert numbers(await collect(runner.submit(utterance(f"{number}", id=str(number))))) == [number]
    assert engine.max_concurrent == 1


async def test_an_utterance_that_fails_or_leaves_does_not_disturb_its_mates(voices: LiveRegistry) -> None:
    engine = HeldEngine(slots=3)
    async with started(engine, voices) as runner:
        engine.hold()
        staying = runner.submit(utterance("7 8 9", id="staying"))
        failing = runner.submit(utterance("1 explode 2", id="failing"))
        leaving = runner.submit(utterance("3 4 5", id="leaving"))
        for _ in range(4):
            engine.step()
        await until(lambda: engine.pieces["staying"] + engine.pieces["leaving"] >= 3)
        leaving.cancellation.request()
        engine.release()
        for _ in range(9):
            engine.step()
        assert numbers(await collect(staying)) == [7, 8, 9]
        assert [kind for kind, _ in await collect(failing)][-1] is FrameKind.ERROR
        await until(lambda: runner.in_flight == ())


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(st.lists(st.integers(0, 999), min_size=1, max_size=6), min_size=1, max_size=8))
def test_frames_of_concurrent_runs_never_mix(voices: LiveRegistry, texts: list[list[int]]) -> None:
    async def speak_all() -> list[list[tuple[FrameKind, bytes]]]:
        async with started(HeldEngine(slots=len(texts)), voices) as runner:
            runs = [runner.submit(utterance(" ".join(map(str, text)), id=str(at))) for at, text in enumerate(texts)]
            return await asyncio.gather(*map(collect, runs))

    spoken = asyncio.run(speak_all())
    assert [numbers(frames) for frames in spoken] == texts
    samples = [json.loads(frames[-1][1])["samples"] for frames in spoken]
    assert samples == [PIECE_SAMPLES * len(text) for text in texts]


# Cancellation


async def test_cancelled_before_the_start(voices: LiveRegistry) -> None:
    engine = HeldEngine(slots=2)
    async with started(engine, voices) as runner:
        engine.hold()
        first = runner.submit(utterance("1", id="first"))
        second = runner.submit(utterance("2", id="second"))
        second.cancellation.request()
        engine.release()
        assert numbers(await collect(first)) == [1]
        await until(lambda: runner.in_flight == ())
    assert "second" not in engine.started
    assert runner.done == 1


async def test_cancelled_in_the_middle(runner: Runner, engine: HeldEngine) -> None:
    engine.hold()
    accepted = runner.submit(utterance("1 2 3 4"))
    engine.step()
    await until(lambda: engine.pieces["u"] == 1)
    accepted.cancellation.request()
    assert runner.in_flight == ("u",), "the slot is not free before the engine has stopped"
    engine.step()
    await until(lambda: runner.in_flight == ())
    assert (runner.done, engine.pieces["u"]) == (0, 1)
    assert engine.ended[-1] == "u"
    engine.release()
    assert numbers(await collect(runner.submit(utterance("7", id="next")))) == [7]


class DeafEngine(HeldEngine):
    """Never looks at its cancellation."""

    def synthesize(self, utterance: Utterance, source: VoiceSource, cancellation: Cancellation) -> Iterator[Samples]:
        yield from super().synthesize(utterance, source, Cancellation())


async def test_an_engine_that_never_looks_is_stopped_between_pieces(voices: LiveRegistry) -> None:
    engine = DeafEngine()
    async with started(engine, voices) as runner:
        engine.hold()
        accepted = runner.submit(utterance("1 2 3 4"))
        engine.step()
        await until(lambda: engine.pieces["u"] == 1)
        accepted.cancellation.request()
        engine.release()
        await until(lambda: runner.in_flight == ())
    # The runner looks after the first piece, too: whether before or after the request is a matter of luck.
    assert engine.pieces["u"] in (1, 2)
    assert runner.done == 0


async def test_cancelled_at_the_last_piece_is_not_done(runner: Runner, engine: HeldEngine) -> None:
    engine.hold()
    accepted = runner.submit(utterance("1"))
    await until(lambda: engine.started[-1] == "u")
    accepted.cancellation.request()
    engine.release()
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


async def test_a_worker_without_memory_says_so_and_goes_on(runner: Runner, caplog: pytest.LogCaptureFixture) -> None:
    frames = await collect(runner.submit(utterance("1 exhaust 2")))
    assert (error(frames).code, error(frames).id) == ("exhausted", "u")
    assert "MemoryError" in caplog.text
    assert numbers(await collect(runner.submit(utterance("5")))) == [5]


async def test_a_long_piece_is_sent_in_several_frames(runner: Runner) -> None:
    frames = await collect(runner.submit(utterance("long")))
    pcm = [payload for kind, payload in frames if kind is FrameKind.PCM]
    assert b"".join(pcm) == bytes(2 * LONG_SAMPLES)
    assert max(map(len, pcm)) <= MAX_PCM_FRAME_BYTES


async def test_a_voice_that_cannot_be_prepared(runner: Runner, engine: HeldEngine) -> None:
    for tries in (2, 3):
        assert error(await collect(runner.submit(utterance("1", voice="broken")))).code == "internal"
        assert "broken" not in runner.voices_prepared
        assert names(engine.prepared).count("broken") == tries
    assert numbers(await collect(runner.submit(utterance("5")))) == [5]


async def test_a_clip_that_cannot_be_used(tmp_path: Path) -> None:
    engine = CloningEngine()
    async with started(engine, folder_of(tmp_path, DESCRIPTIONS)) as runner:
        engine.unusable = "it is silent"
        (tmp_path / "cloned" / "clip.wav").write_bytes(b"another")
        closing = error(await collect(runner.submit(utterance("1", voice="cloned"))))
        assert (closing.code, closing.message) == ("invalid", "voice 'cloned' cannot be used: it is silent")
        assert (runner.in_flight, runner.done, runner.phase) == ((), 0, Phase.READY)
        engine.unusable = None
        assert numbers(await collect(runner.submit(utterance("5", voice="cloned")))) == [5]


async def test_a_clip_that_is_gone_is_refused(tmp_path: Path) -> None:
    async with started(CloningEngine(), folder_of(tmp_path, DESCRIPTIONS)) as runner:
        (tmp_path / "cloned" / "clip.wav").unlink()
        refusal = refused(runner, utterance(voice="cloned"))
        assert refusal.code == "invalid"
        assert refusal.message == "cannot read the reference clip cloned/clip.wav: No such file or directory"
        assert runner.in_flight == ()


class ScansOnRequest(LiveRegistry):
    """A registry whose scans are never due: it knows what it has read, until `rescan`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, clock=lambda: 0.0)

    async def rescan(self) -> None:
        super().__init__(self._folder, clock=lambda: 0.0)


async def test_a_voice_with_another_clip_than_in_the_last_scan_is_found(tmp_path: Path) -> None:
    engine = CloningEngine()
    folder_of(tmp_path, DESCRIPTIONS)
    async with started(engine, ScansOnRequest(tmp_path)) as runner:
        (tmp_path / "cloned" / "clip.wav").rename(tmp_path / "cloned" / "clip.flac")
        description = tmp_path / "cloned" / "voice.toml"
        description.write_text(description.read_text().replace("clip.wav", "clip.flac"))
        accepted = await runner.submit_when_found(utterance("5", voice="cloned"))
        assert numbers(await collect(accepted)) == [5]
        assert engine.prepared[-1].reference == tmp_path / "cloned" / "clip.flac"


# Loading and warming up


async def test_phases_from_the_start_to_ready(voices: LiveRegistry) -> None:
    engine = HeldEngine()
    engine.hold()
    loading = threading.Event()

    def load() -> HeldEngine:
        assert loading.wait(TIMEOUT)
        return engine

    runner = Runner(load, voices)
    assert runner.phase is Phase.STARTING
    runner.start()
    refusal = refused(runner, utterance())
    assert (refusal.code, refusal.message) == ("not_ready", "the worker is starting")
    assert runner.slots == 1
    loading.set()
    await until(lambda: engine.started == ["warm-up"])
    await until(lambda: runner.phase is Phase.WARMING)
    assert refused(runner, utterance()).message == "the worker is warming"
    assert engine.ended == []
    engine.release()
    for _ in range(100):
        engine.step()
    await until(lambda: runner.phase is Phase.READY)
    assert engine.ended == ["warm-up"]
    assert (runner.done, runner.progress, runner.speed) == (0, 0, None), "the warm-up counts for nothing"
    assert numbers(await collect(runner.submit(utterance("4")))) == [4]
    assert len(engine.threads) == 1


async def test_voices_are_prepared_once(runner: Runner, engine: HeldEngine) -> None:
    assert names(engine.prepared)[0] == "default"
    assert sorted(names(engine.prepared)) == ["broken", "default", "other"]
    assert runner.voices_prepared == ("default", "other")
    for number, voice in enumerate(["default", "other", "alloy", "other", "default"]):
        await collect(runner.submit(utterance("1", id=str(number), voice=voice)))
    assert len(engine.prepared) == 3


@pytest.mark.parametrize("pid", range(4))
async def test_workers_begin_at_different_voices(
    voices: LiveRegistry, monkeypatch: pytest.MonkeyPatch, pid: int
) -> None:
    monkeypatch.setattr("os.getpid", lambda: pid)
    engine = CloningEngine()
    async with started(engine, voices):
        others = ["broken", "cloned", "default", "other"]
        turned = others[pid:] + others[:pid]
        assert names(engine.prepared) == ["default", *(name for name in turned if name != "default")]


async def test_a_voice_that_cannot_be_used_keeps_no_worker_from_starting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = CloningEngine()
    engine.unusable = "it is silent"
    async with started(engine, folder_of(tmp_path, DESCRIPTIONS)) as runner:
        assert runner.voices_prepared == ("default", "other")
        messages = [record.getMessage() for record in caplog.records if record.name == "worker.runner"]
        assert "voice cloned cannot be used: it is silent" in messages
        assert "voice broken cannot be prepared" in messages
        assert numbers(await collect(runner.submit(utterance("3")))) == [3]


async def test_a_clip_that_is_gone_keeps_no_worker_from_starting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = folder_of(tmp_path, DESCRIPTIONS)
    (tmp_path / "cloned" / "clip.wav").unlink()
    async with started(CloningEngine(), registry) as runner:
        assert runner.voices_prepared == ("default", "other")
    assert "voice cloned cannot be used" in caplog.text


async def test_a_voice_whose_clip_changed_is_prepared_anew(tmp_path: Path) -> None:
    engine = CloningEngine()
    async with started(engine, folder_of(tmp_path, DESCRIPTIONS)) as runner:
        assert names(engine.prepared).count("cloned") == 1
        (tmp_path / "cloned" / "clip.wav").write_bytes(b"a longer clip")
        for number in (1, 2):
            await collect(runner.submit(utterance("1", id=str(number), voice="cloned")))
        before, after = (source for source in engine.prepared if source.voice.name == "cloned")
        assert before.reference == after.reference == tmp_path / "cloned" / "clip.wav"
        assert before.fingerprint != after.fingerprint


async def test_the_warm_up_is_short(voices: LiveRegistry) -> None:
    engine = CloningEngine()
    async with started(engine, voices):
        assert [(spoken.id, spoken.voice, spoken.token_budget) for spoken in engine.spoken] == [
            ("warm-up", "default", 50)
        ]


async def test_a_cloned_default_voice_warms_up_with_its_clip(tmp_path: Path) -> None:
    registry = folder_of(tmp_path, {"default": DESCRIPTIONS["cloned"]})
    voice = registry.resolve("default")
    engine = CloningEngine()
    async with started(engine, registry):
        assert engine.prepared == [VoiceSource(voice, tmp_path / "default" / "clip.wav", registry.fingerprint(voice))]


async def failure(load: Callable[[], Engine], voices: LiveRegistry) -> str:
    runner = Runner(load, voices)
    runner.start()
    async with asyncio.timeout(TIMEOUT):
        await runner.settled()
    assert runner.phase is Phase.FAILED
    assert runner.reason is not None
    refusal = refused(runner, utterance())
    assert (refusal.code, refusal.message) == ("not_ready", runner.reason)
    return runner.reason


async def test_a_model_that_is_not_there(voices: LiveRegistry) -> None:
    def load() -> HeldEngine:
        raise ModelUnavailableError("no weights in /models; run: make weights")

    assert await failure(load, voices) == "no weights in /models; run: make weights"


async def test_a_model_that_fails_to_load_in_a_way_nobody_expected(
    voices: LiveRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    def load() -> HeldEngine:
        raise OSError("libgomp.so.1: cannot open shared object file")

    assert await failure(load, voices) == "OSError: libgomp.so.1: cannot open shared object file"
    assert "Traceback" in caplog.text


class ColdEngine(HeldEngine):
    """Fails at its first words."""

    def synthesize(self, utterance: Utterance, source: VoiceSource, cancellation: Cancellation) -> Iterator[Samples]:
        raise RuntimeError("out of memory")


async def test_a_warm_up_that_fails(voices: LiveRegistry) -> None:
    assert await failure(ColdEngine, voices) == "RuntimeError: out of memory"


async def test_without_a_default_voice_there_is_nothing_to_warm_up_with(tmp_path: Path) -> None:
    voices = folder_of(tmp_path, {"other": DESCRIPTIONS["other"]})
    assert "there is no voice 'default'; there are: other" in await failure(HeldEngine, voices)


async def test_a_failed_utterance_is_no_failure_of_the_runner(runner: Runner) -> None:
    await collect(runner.submit(utterance("explode")))
    await runner.settled()
    assert (runner.phase, runner.reason) == (Phase.READY, None)


async def test_a_drained_runner_takes_no_more_and_finishes_what_it_has(runner: Runner, engine: HeldEngine) -> None:
    engine.hold()
    accepted = runner.submit(utterance("1 2"))
    runner.drain()
    drained = asyncio.ensure_future(runner.drained())
    refusal = refused(runner, utterance("3", id="next"))
    assert (refusal.code, refusal.message) == ("not_ready", "the worker is draining")
    assert not drained.done()
    engine.release()
    assert numbers(await collect(accepted)) == [1, 2]
    async with asyncio.timeout(TIMEOUT):
        await drained
    assert runner.phase is Phase.DRAINING


async def test_an_idle_runner_is_drained_at_once(runner: Runner) -> None:
    runner.drain()
    async with asyncio.timeout(TIMEOUT):
        await runner.drained()


async def test_a_cancelled_utterance_ends_a_drain(runner: Runner, engine: HeldEngine) -> None:
    engine.hold()
    accepted = runner.submit(utterance("1 2"))
    runner.drain()
    accepted.cancellation.request()
    engine.release()
    async with asyncio.timeout(TIMEOUT):
        await runner.drained()


async def test_after_crashes_it_waits_and_says_why(voices: LiveRegistry) -> None:
    loaded = threading.Event()

    def load() -> HeldEngine:
        loaded.set()
        return HeldEngine()

    runner = Runner(load, voices, crashes=Crashes(2, "ERROR out of luck"))
    runner.start()
    await until(lambda: runner.phase is Phase.FAILED)
    assert "crashed at each of its last 2 starts" in (runner.reason or "")
    assert "ERROR out of luck" in (runner.reason or "")
    assert not loaded.is_set()
    await until(lambda: runner.phase is Phase.READY)
    assert runner.reason is None


async def test_a_line_for_each_utterance_that_tells_its_ids_and_not_its_text(
    runner: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "worker.runner")
    for text in ("31 41", "unspeakable", "explode"):
        await collect(runner.submit(utterance(text, id=text.split()[0], request_id=f"r-{text[:3]}")))
    lines = [(record.getMessage(), getattr(record, "fields", {})) for record in caplog.records]
    ends = [(message, fields) for message, fields in lines if message.startswith("utterance ")]
    assert [message for message, _ in ends] == ["utterance ok", "utterance unspeakable", "utterance failed"]
    assert [(fields["utterance"], fields["request"]) for _, fields in ends] == [
        ("31", "r-31 "),
        ("unspeakable", "r-uns"),
        ("explode", "r-exp"),
    ]
    assert all(fields["seconds"] >= 0 for _, fields in ends)
    assert ends[0][1]["audio_seconds"] == round(2 * PIECE_SAMPLES / 24_000, 3)
    assert "text" not in ends[0][1]
    assert "31 41" not in caplog.text


async def test_the_text_is_logged_where_that_is_wanted(voices: LiveRegistry, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "worker.runner")
    engine = HeldEngine()
    runner = Runner(lambda: engine, voices, log_text=True)
    runner.start()
    await until(lambda: runner.phase is Phase.READY)
    await collect(runner.submit(utterance("31 41")))
    assert [record.fields["text"] for record in caplog.records if hasattr(record, "fields")] == ["31 41"]


def test_the_model_thread_outlives_its_loop_quietly(voices: LiveRegistry, capfd: pytest.CaptureFixture[str]) -> None:
    engine = HeldEngine()

    async def leave() -> None:
        async with started(engine, voices) as runner:
            engine.hold()
            runner.submit(utterance("1 2"))
            await until(lambda: engine.started[-1] == "u")

    asyncio.run(leave())
    engine.release()
    engine.step()
    deadline = time.monotonic() + TIMEOUT
    while engine.ended[-1] != "u":
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert capfd.readouterr().err == ""


# Samples on the wire


def test_samples_on_the_wire() -> None:
    samples = np.array([0.0, 1.0, -1.0, 0.5, 2.0, -7.0, 1 / 32767], np.float32)
    assert np.frombuffer(to_pcm(samples), "<i2").tolist() == [0, 32767, -32767, 16384, 32767, -32767, 1]
    assert to_pcm(np.zeros(0, np.float32)) == b""
