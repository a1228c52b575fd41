"""Measures workers of one layout, with one utterance alone and with every slot in use, for `chorus calibrate`.

The workers are real ones, with the options that `chorus serve` would start them with, and receive utterances over their
sockets without a balancer in between.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from balancer.fleet.worker_client import (
    SynthesisResult,
    UtteranceRefusedError,
    WorkerClient,
    WorkerFullError,
    WorkerLostError,
)
from balancer.host.calibration import Measurement
from balancer.host.layout import Layout
from balancer.host.processes import log_tail, running
from balancer.host.worker_options import worker_options
from balancer.requests.bodies import DEFAULT_VOICE
from balancer.settings.settings import Settings
from worker.contract import SAMPLE_BYTES, Phase, Utterance, WorkerState
from worker.options import WorkerOptions

START_SECONDS = 600.0
"""Time-out for a worker to become ready: gigabytes of weights may come from a slow disk."""
STATE_SECONDS = 60.0
"""Time-out for a worker's answer about its state, which is slow while the worker starts."""
POLL_INTERVAL_SECONDS = 0.1

TEXTS = (
    "The ferry leaves at seven, so please be at the pier a little earlier.",
    "Nobody had expected that the old clock would ever strike again.",
    "You can pay in cash or by card, and keep the receipt for later.",
    "In the evening the wind turned, and the whole valley smelled of rain.",
    "Press the green button twice, then wait until the light goes out.",
    "My sister has moved to the coast and paints boats all summer long.",
    "Thank you for calling; your order was sent out this morning.",
    "A short walk through the garden brought them to a small wooden gate.",
)
"""The texts of the utterances, in turn: about four seconds of audio each."""

TOKENS_PER_CHARACTER = 2
"""Token budget of a text: ordinary English needs 1.6 tokens per character. It stops a model that misses the end."""

MIN_SECONDS = 10.0
"""Duration of a run without a given number of utterances: a fast engine then synthesizes more of them."""


class CalibrationRunError(RuntimeError):
    """A worker did not start, or failed during the run; the message says why."""


@dataclass(frozen=True)
class RunLimits:
    """How long workers are measured. An utterance that has been started is always finished."""

    utterances: int | None
    """Utterances of each worker, but one for each slot at least.

    None: two for each slot, four at least, and more until `MIN_SECONDS` have passed.
    """
    seconds: float
    """No utterance is started later than this many seconds after the first."""
    first_sounds: int = 0
    """Utterances whose first sound is measured before all others, one at a time."""

    def utterances_per_worker(self, slots: int) -> int:
        """The utterances of a worker with `slots` slots, if there is time for them."""
        return max(slots, self.utterances if self.utterances is not None else max(4, 2 * slots))

    def reached(self, slots: int, utterances: int, elapsed: float) -> bool:
        """Whether a worker that has started `utterances` starts no more, `elapsed` seconds after the first."""
        enough = utterances >= self.utterances_per_worker(slots) and (
            self.utterances is not None or elapsed >= MIN_SECONDS
        )
        return enough or (utterances > 0 and elapsed > self.seconds)


@dataclass
class _Results:
    """The utterances that have been synthesized so far; times in seconds."""

    audio_seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)


def measure_layout(
    settings: Settings, layout: Layout, limits: RunLimits, on_utterance: Callable[[], object]
) -> Measurement:
    """Start the workers of `layout`, have them synthesize, end them.

    `on_utterance` is called after each utterance. The weights must be in `settings.engine.model_dir`, if the engine has
    any. However it ends, no process and no file is left. Raises CalibrationRunError.
    """
    with tempfile.TemporaryDirectory(prefix="chorus-") as folder, _started(settings, layout, Path(folder)) as workers:
        early_audio = settings.engine_options().card.early_audio
        first_piece_tokens = settings.streams.first_piece_tokens(early_audio=early_audio)
        return asyncio.run(_measure(layout, limits, workers, first_piece_tokens, on_utterance))


@dataclass(frozen=True)
class _Worker:
    options: WorkerOptions
    process: subprocess.Popen[bytes]
    log: Path

    def failure(self, what: str) -> CalibrationRunError:
        tail = log_tail(self.log)
        message = f"worker {self.options.index} {what}"
        return CalibrationRunError(f"{message}; the end of its log:\n{tail}" if tail else message)


@contextmanager
def _started(settings: Settings, layout: Layout, folder: Path) -> Iterator[list[_Worker]]:
    with ExitStack() as stack:
        workers = []
        for index in range(len(layout.workers)):
            options = calibration_options(settings, layout, index, folder)
            log = folder / f"output-{index}"  # `worker-{index}.log` is the worker's own
            process = stack.enter_context(
                running(
                    ["nice", "-n", "5", *options.command()],
                    log=log,
                    cwd=folder,
                    env=os.environ | {"TMPDIR": str(folder)},  # so that the files of a killed worker are deleted, too
                    death_signal=signal.SIGKILL,
                )
            )
            workers.append(_Worker(options, process, log))
        yield workers


def calibration_options(settings: Settings, layout: Layout, index: int, folder: Path) -> WorkerOptions:
    """Returns the options that `chorus serve` would start the worker with, but in `folder`, quiet and unwatched."""
    return replace(
        worker_options(settings, layout, index=index),
        run_dir=folder,
        watchdog_seconds=0.0,
        log_level="warning",
        log_format="text",
        log_text=False,
    )


async def _measure(
    layout: Layout,
    limits: RunLimits,
    workers: list[_Worker],
    first_piece_tokens: int | None,
    on_utterance: Callable[[], object],
) -> Measurement:
    async with _connected(workers) as clients:
        await asyncio.gather(*map(_await_ready, workers, clients))
        first_sound = (
            await _first_sound(workers[0], clients[0], limits, first_piece_tokens) if limits.first_sounds else None
        )
        results = _Results()
        started = time.perf_counter()

        async def synthesize(worker: _Worker, client: WorkerClient, utterances: Iterator[Utterance]) -> None:
            bytes_per_second = worker.options.engine.card.sample_rate * SAMPLE_BYTES
            for utterance in utterances:
                sent = time.perf_counter()
                result = await _synthesize(worker, client, utterance)
                results.audio_seconds += len(result.pcm) / bytes_per_second
                results.latencies.append(time.perf_counter() - sent)
                on_utterance()

        slots = []
        for worker, client in zip(workers, clients, strict=True):
            utterances = _utterances(worker, layout.slots, limits, started)
            slots += [synthesize(worker, client, utterances) for _ in range(layout.slots)]
        await asyncio.gather(*slots)
        seconds = time.perf_counter() - started
        states = [await _state(worker, client) for worker, client in zip(workers, clients, strict=True)]
    return Measurement(
        threads=layout.threads,
        slots=layout.slots,
        workers=len(workers),
        utterances=len(results.latencies),
        audio_seconds=results.audio_seconds,
        seconds=seconds,
        answer_seconds=statistics.median(results.latencies),
        worker_bytes=max(state.resident_bytes - state.shared_bytes for state in states),
        first_sound_seconds=first_sound,
    )


class _FirstSoundError(Exception):
    """The first audio of a stream is there, of which no more is wanted."""


async def _first_sound(
    worker: _Worker, client: WorkerClient, limits: RunLimits, first_piece_tokens: int | None
) -> float:
    """The median time to the first audio of streams, one at a time. Raises CalibrationRunError."""

    def leave(_: bytes) -> None:
        raise _FirstSoundError

    started, seconds = time.perf_counter(), list[float]()
    while len(seconds) < limits.first_sounds and (not seconds or time.perf_counter() - started <= limits.seconds):
        utterance = _utterance(worker, len(seconds)).model_copy(
            update={"playout_deadline": 0.0, "first_piece_tokens": first_piece_tokens}
        )
        sent = time.perf_counter()
        with suppress(_FirstSoundError):
            await _synthesize(worker, client, utterance, leave)
        seconds.append(time.perf_counter() - sent)
        while (await _state(worker, client)).in_flight:  # it notices between two steps that its listener has left
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
    return statistics.median(seconds)


async def _synthesize(
    worker: _Worker, client: WorkerClient, utterance: Utterance, on_pcm: Callable[[bytes], None] | None = None
) -> SynthesisResult:
    """The utterance's audio. Raises CalibrationRunError, and as `on_pcm`."""
    try:
        return await client.synthesize(utterance, on_pcm=on_pcm)
    except (WorkerLostError, WorkerFullError, UtteranceRefusedError) as error:
        raise worker.failure(f"did not synthesize {utterance.text!r}: {error}") from error


def _utterances(worker: _Worker, slots: int, limits: RunLimits, started: float) -> Iterator[Utterance]:
    """The utterances of a worker until its limits are reached."""
    for number in count():
        if limits.reached(slots, number, time.perf_counter() - started):
            return
        yield _utterance(worker, number)


def _utterance(worker: _Worker, number: int) -> Utterance:
    """An utterance of a worker; each worker begins with another text."""
    index = worker.options.index
    text = TEXTS[(index + number) % len(TEXTS)]
    return Utterance(
        id=f"{index}-{number}",
        text=text,
        voice=DEFAULT_VOICE,
        seed=number,
        token_budget=TOKENS_PER_CHARACTER * len(text),
    )


@asynccontextmanager
async def _connected(workers: list[_Worker]) -> AsyncIterator[list[WorkerClient]]:
    clients = [WorkerClient(worker.options.socket, state_timeout=STATE_SECONDS) for worker in workers]
    try:
        yield clients
    finally:
        for client in clients:
            await client.close()
        await asyncio.sleep(0)  # the event loop closes the sockets in its next iteration


async def _await_ready(worker: _Worker, client: WorkerClient) -> None:
    """Wait until a worker is ready. Raises CalibrationRunError."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        if worker.process.poll() is not None:
            raise worker.failure(f"did not start: it ended with {worker.process.returncode}")
        if worker.options.socket.exists():
            state = await _state(worker, client)
            if state.phase is Phase.READY:
                return
            if state.phase is Phase.FAILED:
                raise CalibrationRunError(f"worker {worker.options.index} cannot load its model: {state.reason}")
        if time.monotonic() > deadline:
            raise worker.failure(f"was not ready after {START_SECONDS:g} s")
        await asyncio.sleep(POLL_INTERVAL_SECONDS)


async def _state(worker: _Worker, client: WorkerClient) -> WorkerState:
    try:
        return await client.state()
    except WorkerLostError as error:
        raise worker.failure(f"does not answer: {error}") from error
