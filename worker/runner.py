"""The runner owns the model: it loads, warms up and drives it, all from one thread.

A model is not thread-safe; since nothing else in the process holds the engine, no second thread can run it. The event
loop hands utterances over and receives their audio; it never waits for either.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator
from dataclasses import dataclass, field

import numpy as np

from voices.registry import LiveRegistry, UnknownVoiceError, Voice, VoiceError
from worker.contract import (
    MAX_PCM_FRAME_BYTES,
    EndOfUtterance,
    FrameKind,
    Phase,
    Utterance,
    UtteranceError,
    encode_frame,
)
from worker.crash_history import NO_CRASHES, Crashes
from worker.engine_failures import EXHAUSTED, failure_code
from worker.engines.base import (
    Cancellation,
    CancelledError,
    Engine,
    ModelUnavailableError,
    Samples,
    TakeReport,
    UnspeakableError,
    VoiceSource,
    VoiceUnusableError,
)
from worker.watchdog import ModelWatchdog

log = logging.getLogger(__name__)

WARM_UP_TEXT = "Warming up, so that the first listener waits no longer than the tenth."
WARM_UP_TOKENS = 50
"""Two seconds of audio: by then an engine that decodes tokens has compiled and allocated everything."""
DEFAULT_VOICE = "default"

MODEL_THREAD = "model"
"""Name of the thread that owns the model."""

MAX_MESSAGE_CHARACTERS = 2000
"""Length of an error's message; the log has the rest."""

FAILURE_MESSAGES = {
    "internal": "the engine failed on this text; the worker's log has the details",
    "exhausted": "the worker ran out of memory, or its device failed; the worker's log has the details",
}
"""Messages for clients, by the error's code."""

SPEED_SMOOTHING = 0.2
"""Weight of the latest utterance in the moving average of the speed."""


class RefusedError(Exception):
    """The utterance was not accepted; `error` goes to the balancer."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.error = UtteranceError(code=code, message=message[:MAX_MESSAGE_CHARACTERS])


@dataclass
class AcceptedUtterance:
    """An utterance, from its slot to its closing frame."""

    utterance: Utterance
    source: VoiceSource
    cancellation: Cancellation
    _outbox: asyncio.Queue[tuple[FrameKind, bytes]] = field(default_factory=asyncio.Queue)

    @property
    def ids(self) -> dict[str, object]:
        """The ids of the utterance and of its request, for the log."""
        return {"utterance": self.utterance.id, "request": self.utterance.request_id}

    def put(self, kind: FrameKind, payload: bytes) -> None:
        """Add a frame. Event loop only."""
        self._outbox.put_nowait((kind, payload))

    def put_audio(self, pcm: bytes) -> None:
        """Add audio, in as many frames as it takes. Event loop only."""
        for start in range(0, len(pcm), MAX_PCM_FRAME_BYTES):
            self.put(FrameKind.PCM, pcm[start : start + MAX_PCM_FRAME_BYTES])

    async def frames(self) -> AsyncIterator[bytes]:
        """Encoded frames as they are made; the closing frame is the last."""
        kind = FrameKind.PCM
        while kind is FrameKind.PCM:
            kind, payload = await self._outbox.get()
            yield encode_frame(kind, payload)


@dataclass
class _Synthesis:
    """An accepted utterance on the model's thread."""

    accepted: AcceptedUtterance
    chunks: Generator[Samples, None, TakeReport]
    started: float = field(default_factory=time.perf_counter)
    samples: int = 0
    """Samples made so far."""


class Runner:
    """The slots and the model's thread, and the part of `/state` that describes them.

    `load` builds the engine, on the model's thread; `voices` resolves the voices of utterances; `crashes` are the
    crashes before this start. All methods but those of the model's thread belong to the event loop that called `start`.
    """

    def __init__(
        self,
        load: Callable[[], Engine],
        voices: LiveRegistry,
        *,
        crashes: Crashes = NO_CRASHES,
        watchdog_seconds: float = 0.0,
        log_text: bool = False,
    ) -> None:
        self._load = load
        self._voices = voices
        self._crashes = crashes
        self._watchdog = ModelWatchdog(watchdog_seconds)
        self._log_text = log_text
        self._inbox: queue.SimpleQueue[AcceptedUtterance] = queue.SimpleQueue()
        self._accepted: dict[str, AcceptedUtterance] = {}
        self._prepared: dict[str, VoiceSource] = {}
        self._settled = asyncio.Event()
        self._drained = asyncio.Event()
        self._draining = False
        self.engine: Engine | None = None
        self.phase = Phase.STARTING
        self.reason: str | None = None
        self.done = 0
        self.progress = 0
        self.speed: float | None = None
        self.retakes: Counter[str] = Counter()
        """Discarded takes by their flaw."""
        self.flawed: Counter[str] = Counter()
        """Utterances whose last take was bad, by its flaw."""

    def start(self) -> None:
        """Start the model's thread. Called once, on the event loop."""
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._drive, name=MODEL_THREAD, daemon=True).start()

    async def settled(self) -> None:
        """Wait until the model is ready or has failed to load."""
        await self._settled.wait()

    def drain(self) -> None:
        """Accept no more utterances, and finish those in flight."""
        self._draining = True
        if self.phase is Phase.READY:
            self.phase = Phase.DRAINING
        if not self._accepted:
            self._drained.set()

    @property
    def draining(self) -> bool:
        """Whether `drain` was called."""
        return self._draining

    async def drained(self) -> None:
        """Wait until no utterance is in flight after `drain`."""
        await self._drained.wait()

    @property
    def in_flight(self) -> tuple[str, ...]:
        """Ids of the utterances that hold a slot."""
        return tuple(self._accepted)

    @property
    def slots(self) -> int:
        """Utterances that may be in flight at once; 1 before the model is loaded."""
        return self.engine.slots if self.engine is not None else 1

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Seconds that the engine spent in each stage, a copy; empty for an engine that does not count."""
        return dict(getattr(self.engine, "stage_seconds", {}))

    @property
    def voices_prepared(self) -> tuple[str, ...]:
        """Voices that are prepared, sorted by name."""
        return tuple(sorted(self._prepared))

    async def submit_when_found(self, utterance: Utterance) -> AcceptedUtterance:
        """The same as `submit`. Waits for the folder of voices only where it is needed: for a new or a cloned voice."""
        source = await self._find_source(utterance.voice)
        if source is None:  # the voice may have been added, or given another clip, since the last scan
            await self._voices.rescan()
            source = await self._find_source(utterance.voice)
        return self.submit(utterance, source)

    async def _find_source(self, name: str) -> VoiceSource | None:
        """The voice as the last scan has it; None if it is not there, or its clip cannot be read."""
        try:
            voice = self._voices.resolve(name)
            if voice.reference is None:
                return VoiceSource(voice, None)
            fingerprint = await self._voices.current_fingerprint(voice)
            return VoiceSource(voice, self._voices.reference(voice), fingerprint)
        except (UnknownVoiceError, VoiceError):
            return None

    def submit(self, utterance: Utterance, source: VoiceSource | None = None) -> AcceptedUtterance:
        """Put an utterance into a free slot, or raise RefusedError at once: the only queue is the balancer's.

        `source` is the utterance's voice; without it the voice is looked up.
        """
        if self.engine is None or self.phase is not Phase.READY:
            raise RefusedError("not_ready", self.reason or f"the worker is {self.phase}")
        if utterance.id in self._accepted:
            raise RefusedError("invalid", f"utterance {utterance.id!r} is already in flight")
        if len(self._accepted) >= self.slots:
            raise RefusedError("full", f"all {self.slots} slots are taken")
        source = self._source(utterance, self.engine, source)
        accepted = AcceptedUtterance(utterance, source, Cancellation(self._progressed))
        self._accepted[utterance.id] = accepted
        self._inbox.put(accepted)
        return accepted

    def _source(self, utterance: Utterance, engine: Engine, source: VoiceSource | None) -> VoiceSource:
        card = engine.card
        unknown = [name for name in utterance.parameters if card.parameter(name) is None]
        if unknown:
            raise RefusedError("invalid", f"engine {card.name!r} has no parameter {unknown[0]!r}")
        try:
            voice = source.voice if source is not None else self._voices.resolve(utterance.voice)
        except UnknownVoiceError as error:
            raise RefusedError("invalid", str(error)) from error
        if not self._fits(voice, engine):
            raise RefusedError("invalid", f"engine {card.name!r} cannot speak voice {voice.name!r}")
        try:
            return source or self._voice_source(voice)
        except VoiceError as error:
            raise RefusedError("invalid", str(error)) from error

    def _voice_source(self, voice: Voice) -> VoiceSource:
        if voice.reference is None:
            return VoiceSource(voice, None)
        return VoiceSource(voice, self._voices.reference(voice), self._voices.fingerprint(voice))

    def _fits(self, voice: Voice, engine: Engine) -> bool:
        return voice.fits(engine.card.name, clones_voices=engine.card.clones_voices)

    # The model's thread, from here on.

    def _drive(self) -> None:
        if self._crashes.wait:
            self._call_on_loop(self._hold, self._crashes.reason)
            time.sleep(self._crashes.wait)
            self._call_on_loop(self._begin)
        try:
            engine = self._load()
            self._call_on_loop(self._warming, engine)
            self._warm_up(engine)
        except ModelUnavailableError as error:
            log.error("the model cannot load: %s", error)
            self._call_on_loop(self._fail, str(error))
            return
        except Exception as error:
            log.exception("the model cannot load")
            self._call_on_loop(self._fail, f"{type(error).__name__}: {error}")
            return
        self._call_on_loop(self._ready)
        active: list[_Synthesis] = []
        while True:
            while len(active) < engine.slots and (not active or not self._inbox.empty()):
                accepted = self._inbox.get()
                active.append(_Synthesis(accepted, self._chunks(engine, accepted)))
            # One chunk each in turn: an engine with several slots makes progress on all of them with each chunk.
            active = [synthesis for synthesis in active if self._advance(engine, synthesis)]
            if not active:
                self._watchdog.rest()

    def _warm_up(self, engine: Engine) -> None:
        voice = self._voices.resolve(DEFAULT_VOICE)
        source = self._voice_source(voice)
        self._prepare(engine, source)
        utterance = Utterance(id="warm-up", text=WARM_UP_TEXT, voice=voice.name, seed=0, token_budget=WARM_UP_TOKENS)
        for _ in engine.synthesize(utterance, source, Cancellation()):
            pass
        self._prepare_all(engine)

    def _prepare_all(self, engine: Engine) -> None:
        """Prepare every voice, so that no first request waits for it."""
        names = [name for name in self._voices.names if self._fits(self._voices.resolve(name), engine)]
        # Workers that start together begin with different voices: each finds what the others have computed.
        first = os.getpid() % max(1, len(names))
        for name in names[first:] + names[:first]:
            try:
                self._prepare(engine, self._voice_source(self._voices.resolve(name)))
            except (VoiceError, VoiceUnusableError) as error:
                log.error("voice %s cannot be used: %s", name, error)
            except Exception:  # one voice is no reason to be without the others
                log.exception("voice %s cannot be prepared", name)

    def _prepare(self, engine: Engine, source: VoiceSource) -> None:
        if self._prepared.get(source.voice.name) != source:
            engine.prepare(source)
            self._prepared[source.voice.name] = source

    def _chunks(self, engine: Engine, accepted: AcceptedUtterance) -> Generator[Samples, None, TakeReport]:
        accepted.cancellation.check()
        self._prepare(engine, accepted.source)
        chunks = iter(engine.synthesize(accepted.utterance, accepted.source, accepted.cancellation))
        while True:
            try:
                chunk = next(chunks)
            except StopIteration as end:
                return end.value or TakeReport()
            yield chunk
            accepted.cancellation.check()

    def _advance(self, engine: Engine, synthesis: _Synthesis) -> bool:
        """Make the next chunk; returns whether the utterance goes on."""
        accepted = synthesis.accepted
        outcome, error = "ok", None
        report = TakeReport()
        utterance_id = accepted.utterance.id
        try:
            chunk = next(synthesis.chunks)
            if len(chunk):
                synthesis.samples += len(chunk)
                self._call_on_loop(accepted.put_audio, to_pcm(chunk))
            return True
        except StopIteration as end:
            report = end.value
        except CancelledError:
            outcome = "cancelled"
        except UnspeakableError as unspeakable:
            outcome, error = "unspeakable", _error(utterance_id, "unspeakable", str(unspeakable))
        except VoiceUnusableError as unusable:
            message = f"voice {accepted.source.voice.name!r} cannot be used: {unusable}"
            outcome, error = "invalid", _error(utterance_id, "invalid", message)
        except Exception as failure:
            code = failure_code(failure)
            outcome, error = "failed", _error(utterance_id, code, FAILURE_MESSAGES[code])
            if code == EXHAUSTED:
                # Its frames hold what the engine had allocated, and logging needs memory as well.
                traceback.clear_frames(failure.__traceback__)
            log.error("the engine failed", exc_info=failure, extra={"fields": accepted.ids})
        seconds = time.perf_counter() - synthesis.started
        audio_seconds = synthesis.samples / engine.card.sample_rate
        self._log(accepted, outcome, seconds, audio_seconds)
        if outcome == "ok":
            self._call_on_loop(self._finish, accepted, synthesis.samples, seconds, audio_seconds / seconds, report)
        else:
            self._call_on_loop(self._close, accepted, error)
        return False

    def _progressed(self) -> None:
        self.progress += 1
        self._watchdog.progressed()

    def _log(self, accepted: AcceptedUtterance, outcome: str, seconds: float, audio_seconds: float) -> None:
        fields = accepted.ids | {
            "voice": accepted.utterance.voice,
            "characters": len(accepted.utterance.text),
            "seconds": round(seconds, 4),
            "audio_seconds": round(audio_seconds, 3),
        }
        if self._log_text:
            fields["text"] = accepted.utterance.text
        log.info("utterance %s", outcome, extra={"fields": fields})

    def _call_on_loop(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            # The loop is closed: the process is about to end.
            log.debug("the event loop is closed; %s is not called", callback.__name__)

    # Called by the model's thread, run on the event loop.

    def _warming(self, engine: Engine) -> None:
        self.engine = engine
        self.phase = Phase.WARMING

    def _hold(self, reason: str) -> None:
        self.phase, self.reason = Phase.FAILED, reason

    def _begin(self) -> None:
        self.phase, self.reason = Phase.STARTING, None

    def _ready(self) -> None:
        self.phase = Phase.READY
        self._settled.set()

    def _fail(self, reason: str) -> None:
        self.phase, self.reason = Phase.FAILED, reason
        self._settled.set()

    def _finish(
        self, accepted: AcceptedUtterance, samples: int, seconds: float, speed: float, report: TakeReport
    ) -> None:
        self.done += 1
        self.retakes.update(report.discarded)
        if report.flaw is not None:
            self.flawed[report.flaw] += 1
        self.speed = speed if self.speed is None else self.speed + SPEED_SMOOTHING * (speed - self.speed)
        self._release(accepted)
        end = EndOfUtterance(
            id=accepted.utterance.id,
            samples=samples,
            compute_seconds=seconds,
            retakes=len(report.discarded),
            flaw=report.flaw,
        )
        accepted.put(FrameKind.END, end.model_dump_json().encode())

    def _close(self, accepted: AcceptedUtterance, error: UtteranceError | None) -> None:
        self._release(accepted)
        if error is not None:
            accepted.put(FrameKind.ERROR, error.model_dump_json().encode())

    def _release(self, accepted: AcceptedUtterance) -> None:
        del self._accepted[accepted.utterance.id]
        if self.phase is Phase.DRAINING and not self._accepted:
            self._drained.set()


def _error(utterance_id: str, code: str, message: str) -> UtteranceError:
    return UtteranceError(id=utterance_id, code=code, message=message[:MAX_MESSAGE_CHARACTERS])


def to_pcm(samples: Samples) -> bytes:
    """Float samples in [-1, 1] as signed 16-bit little-endian PCM; samples out of range are clipped."""
    pcm: bytes = np.round(np.clip(samples, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()
    return pcm
