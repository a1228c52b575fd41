"""Has real workers of one shape speak for a while, every slot taken: what `chorus calibrate` measures with.

The workers are started as supervisord would start them, and asked over their sockets, without a balancer in between.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from balancer.fleet.worker_client import UtteranceRefusedError, WorkerClient, WorkerFullError, WorkerLostError
from balancer.host.calibration import Measurement
from balancer.host.layout import Layout
from balancer.requests.bodies import DEFAULT_VOICE
from balancer.settings import Settings
from worker.contract import SAMPLE_BYTES, Phase, Utterance, WorkerState

START_SECONDS = 600.0
"""Until a worker must be ready: gigabytes of weights may come from a slow disk."""
STATE_SECONDS = 60.0
"""Within which a worker must answer while it starts."""
POLL_INTERVAL_SECONDS = 0.1
TAIL_LINES = 15

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
"""What is spoken, in turn: about four seconds each."""

TOKENS_A_CHARACTER = 2
"""Most that a text may take: ordinary English takes 1.6. It ends a model that misses its own end."""


class CalibrationRunError(RuntimeError):
    """The workers did not start, or did not speak to the end; the message says why."""


MIN_SECONDS = 10.0
"""A quick engine speaks for so long, however many utterances that takes."""


@dataclass(frozen=True)
class RunLimits:
    """How long a trial goes on. What has begun is spoken to its end."""

    utterances: int | None
    """Of each worker, or as many as it has slots; None: two for every slot, four at least, for `MIN_SECONDS`."""
    seconds: float
    """After which no utterance begins."""

    def each(self, slots: int) -> int:
        """Utterances of a worker of so many slots, if there is time: enough to have all of them taken."""
        return max(slots, self.utterances if self.utterances is not None else max(4, 2 * slots))

    def over(self, slots: int, begun: int, elapsed: float) -> bool:
        """Whether a worker that has begun so many utterances begins no more, so many seconds after the first."""
        enough = begun >= self.each(slots) and (self.utterances is not None or elapsed >= MIN_SECONDS)
        return enough or (begun > 0 and elapsed > self.seconds)


@dataclass
class _Spoken:
    """What has come of a trial so far. Times in seconds."""

    audio: float = 0.0
    answers: list[float] = field(default_factory=list)


def measure_layout(settings: Settings, layout: Layout, bounds: RunLimits, spoke: Callable[[], object]) -> Measurement:
    """Start the workers of `layout`, have them speak, end them; `spoke` is told of each utterance.

    The weights must be in `settings.engine.model_dir`, where the engine has any. However it ends, no process and no
    file is left. Raises CalibrationRunError.
    """
    with tempfile.TemporaryDirectory(prefix="chorus-") as folder, _started(settings, layout, Path(folder)) as workers:
        return asyncio.run(_measure(settings, layout, bounds, workers, spoke))


@dataclass(frozen=True)
class _Worker:
    index: int
    process: subprocess.Popen[bytes]
    socket: Path
    log: Path

    def failure(self, what: str) -> CalibrationRunError:
        with self.log.open(errors="replace") as lines:
            tail = "".join(deque(lines, TAIL_LINES)).rstrip()
        return CalibrationRunError(f"worker {self.index} {what}" + (f"; the end of its log:\n{tail}" if tail else ""))


@contextmanager
def _started(settings: Settings, layout: Layout, folder: Path) -> Iterator[list[_Worker]]:
    with ExitStack() as stack:
        workers = []
        for index in range(len(layout.workers)):
            log = folder / f"output-{index}"  # `worker-{index}.log` is the worker's own
            with log.open("wb") as output:
                # A session of its own: Ctrl-C is this process's to hear, and the worker's end its to bring about.
                process = subprocess.Popen(
                    _command(settings, layout, index, folder),
                    cwd=folder,
                    env=os.environ | {"TMPDIR": str(folder)},  # what a worker that is killed leaves goes with the rest
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            stack.callback(_end, process)
            workers.append(_Worker(index, process, folder / f"worker-{index}.sock", log))
        yield workers


def _command(settings: Settings, layout: Layout, index: int, folder: Path) -> list[str]:
    """What `supervisord.conf` says, but for the watchdog and what happens in a server's life only."""
    options = {
        "index": index,
        "engine": settings.engine.engine,
        "layout": layout.places,
        "runtime": settings.engine.runtime,
        "precision": settings.engine.precision,
        "prompt-seconds": settings.engine.prompt_seconds,
        "slots": layout.slots,
        "model-dir": settings.engine.model_dir or "",
        "cache-dir": settings.storage.cache_dir,
        "run-dir": folder,
        "voices": settings.storage.voices_dir,
        "log-level": "warning",
    }
    ended_with_this_one = ["setpriv", "--pdeathsig", "KILL", "--", "nice", "-n", "5"]
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    return [*ended_with_this_one, sys.executable, "-m", "worker", *words]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


async def _measure(
    settings: Settings, layout: Layout, bounds: RunLimits, workers: list[_Worker], spoke: Callable[[], object]
) -> Measurement:
    async with _connected(workers) as clients:
        await asyncio.gather(*map(_ready, workers, clients))
        spoken = _Spoken()
        rate = settings.engine.card.sample_rate * SAMPLE_BYTES
        started = time.perf_counter()

        async def speak(worker: _Worker, client: WorkerClient, utterances: Iterator[Utterance]) -> None:
            for utterance in utterances:
                sent = time.perf_counter()
                try:
                    answer = await client.synthesize(utterance)
                except (WorkerLostError, WorkerFullError, UtteranceRefusedError) as error:
                    raise worker.failure(f"did not speak {utterance.text!r}: {error}") from error
                spoken.audio += len(answer.pcm) / rate
                spoken.answers.append(time.perf_counter() - sent)
                spoke()

        slots = []
        for worker, client in zip(workers, clients, strict=True):
            utterances = _utterances(worker.index, layout.slots, bounds, started)
            slots += [speak(worker, client, utterances) for _ in range(layout.slots)]
        await asyncio.gather(*slots)
        seconds = time.perf_counter() - started
        states = [await _state(worker, client) for worker, client in zip(workers, clients, strict=True)]
    return Measurement(
        threads=layout.workers[0].threads,
        slots=layout.slots,
        workers=len(workers),
        utterances=len(spoken.answers),
        audio_seconds=spoken.audio,
        seconds=seconds,
        answer_seconds=statistics.median(spoken.answers),
        worker_bytes=max(state.resident_bytes - state.shared_bytes for state in states),
    )


def _utterances(worker: int, slots: int, bounds: RunLimits, started: float) -> Iterator[Utterance]:
    """What a worker is to speak, as long as it should; each worker begins at another text."""
    for number in count():
        if bounds.over(slots, number, time.perf_counter() - started):
            return
        text = TEXTS[(worker + number) % len(TEXTS)]
        yield Utterance(
            id=f"{worker}-{number}",
            text=text,
            voice=DEFAULT_VOICE,
            seed=number,
            token_budget=TOKENS_A_CHARACTER * len(text),
        )


@asynccontextmanager
async def _connected(workers: list[_Worker]) -> AsyncIterator[list[WorkerClient]]:
    clients = [WorkerClient(worker.socket, state_timeout=STATE_SECONDS) for worker in workers]
    try:
        yield clients
    finally:
        for client in clients:
            await client.close()
        await asyncio.sleep(0)  # the sockets are closed at the loop's next turn


async def _ready(worker: _Worker, client: WorkerClient) -> None:
    """Wait until a worker can speak. Raises CalibrationRunError."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        if worker.process.poll() is not None:
            raise worker.failure(f"did not start: it ended with {worker.process.returncode}")
        if worker.socket.exists():
            state = await _state(worker, client)
            if state.phase is Phase.READY:
                return
            if state.phase is Phase.FAILED:
                raise CalibrationRunError(f"worker {worker.index} cannot load its model: {state.reason}")
        if time.monotonic() > deadline:
            raise worker.failure(f"was not ready after {START_SECONDS:g} s")
        await asyncio.sleep(POLL_INTERVAL_SECONDS)


async def _state(worker: _Worker, client: WorkerClient) -> WorkerState:
    try:
        return await client.state()
    except WorkerLostError as error:
        raise worker.failure(f"does not answer: {error}") from error
