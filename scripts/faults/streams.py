"""The fault test of streams: listeners hear one text after another, while one worker after another is killed.

Every stream must be whole and have the audio of its undisturbed twin, to the last sample, without a click at the joins
of its segments. A listener may run dry only for want of a worker that was killed.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from time import monotonic

import httpx
import numpy as np
import psutil

from balancer.load.texts import SENTENCES
from balancer.speech.playout_clock import PlayoutClock
from scripts.faults.invariants import check_invariants, peak_memory, take_snapshot
from scripts.support.check import Check
from scripts.support.console import report_progress
from scripts.support.servers import SERVING_PHASES, Server, start_chorus
from scripts.support.stream_twins import Twin, hear_undisturbed, request_stream
from worker.cards import CARDS
from worker.contract import SAMPLE_BYTES

ENGINE = "hibari"
SAMPLE_RATE = CARDS[ENGINE].sample_rate
SENTENCES_PER_TEXT = 12
UNDISTURBED_SECONDS = 20.0
"""How long the listeners hear streams before the first worker is killed, at most."""
READ_SECONDS = 60.0
"""A stream counts as failed when nothing comes for so long."""
MIN_PAUSE_SECONDS = 0.1
"""Silence of exact zeros that is no shorter is a pause between segments."""
POLL_INTERVAL_SECONDS = 0.02


@dataclass(frozen=True)
class Joins:
    """The joins of segments in one stream, and the largest steps from one sample to the next."""

    count: int
    step_at: int
    step_inside: int


@dataclass
class Heard:
    """What the listeners have heard."""

    whole: int = 0
    """Streams that ended regularly with the audio of their twins."""
    failures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    """Length of the audio of whole streams."""
    first_sounds: list[float] = field(default_factory=list)
    """Seconds from each request to its first audio."""
    gaps: list[tuple[float, float]] = field(default_factory=list)
    """When a listener had nothing to play: the time when the last piece came, and the length."""
    gap_ends: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class StreamPlan:
    """The listeners and the kills. Times are in seconds."""

    duration: float
    listeners: int
    workers: int
    pause: tuple[float, float]
    """Minimum and maximum time from the recovery of one worker until the next is killed."""
    seed: int


@dataclass(frozen=True)
class StreamReport:
    """The result of a fault test of streams."""

    undisturbed: Heard
    disturbed: Heard
    outages: Sequence[tuple[float, float]]
    joins: Sequence[Joins]
    retries: float
    checks: list[Check]

    @property
    def passed(self) -> bool:
        """Whether every stream was whole, and everything else holds."""
        return all(check.holds for check in self.checks)


class Listeners:
    """Each hears a random twin's text as it comes, one after another, until they are stopped."""

    def __init__(self, url: str, twins: Sequence[Twin], seed: int) -> None:
        self.heard = Heard()
        self._url = url
        self._twins = twins
        self._rng = random.Random(f"listeners {seed}")
        self._stopped = False

    def stop(self) -> None:
        """Begin no further stream; `run` returns once the present ones have ended."""
        self._stopped = True

    async def run(self, count: int) -> None:
        """Run so many listeners until they are stopped."""
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._listen())

    async def _listen(self) -> None:
        async with client(self._url) as http:
            while not self._stopped:
                await self.hear(http, self._rng.choice(self._twins))

    async def hear(self, http: httpx.AsyncClient, twin: Twin) -> None:
        """Hear one stream, and compare it with its twin."""
        clock, size, began = PlayoutClock(), 0, monotonic()
        came = began
        try:
            async with request_stream(http, twin) as response:
                if response.status_code != 200:
                    self.heard.failures[f"status {response.status_code}"] += 1
                    return
                async for piece in response.aiter_raw():
                    now = monotonic()
                    if not size:
                        self.heard.first_sounds.append(now - began)
                    if gap := clock.sent(len(piece) / SAMPLE_BYTES / SAMPLE_RATE, now):
                        self.heard.gaps.append((came, gap))
                        self.heard.gap_ends.append(now)
                    came = now
                    if piece != twin.pcm[size : size + len(piece)]:
                        self.heard.failures["other audio than its twin"] += 1
                        return
                    size += len(piece)
        except httpx.HTTPError as error:
            self.heard.failures[type(error).__name__] += 1
            return
        if size < len(twin.pcm):
            self.heard.failures["ended regularly, but too early"] += 1
            return
        self.heard.whole += 1
        self.heard.seconds += size / SAMPLE_BYTES / SAMPLE_RATE


class WorkerKiller:
    """Kills one worker after another, each a random pause after all have been ready again."""

    def __init__(self, server: Server, plan: StreamPlan) -> None:
        self.outages: list[tuple[float, float]] = []
        """From each kill until all workers were ready again."""
        self._server = server
        self._plan = plan
        self._rng = random.Random(f"kills {plan.seed}")

    async def run(self) -> None:
        """Kill workers until cancelled."""
        async with client(self._server.url) as http:
            while True:
                await asyncio.sleep(self._rng.uniform(*self._plan.pause))
                worker = self._rng.choice(self._server.processes_of("worker"))
                began = monotonic()
                with suppress(psutil.NoSuchProcess):
                    worker.kill()
                while not await self._recovered(http, worker.pid):
                    await asyncio.sleep(POLL_INTERVAL_SECONDS)
                self.outages.append((began, monotonic()))

    async def _recovered(self, http: httpx.AsyncClient, killed: int) -> bool:
        workers = (await http.get("/health")).json()["workers"]
        ready = [worker for worker in workers if worker["phase"] in SERVING_PHASES and worker.get("pid") != killed]
        return len(ready) == self._plan.workers


def client(url: str) -> httpx.AsyncClient:
    """A client with a connection of its own. No proxy is asked: it would have failures of its own."""
    return httpx.AsyncClient(base_url=url, timeout=READ_SECONDS, trust_env=False)


def draw_texts(count: int, seed: int) -> list[Twin]:
    """Different texts of several sentences, without their audio; they depend on `seed` alone."""
    rng = random.Random(f"streams {seed}")
    return [
        Twin(f"Text number {number}. " + " ".join(rng.sample(SENTENCES, SENTENCES_PER_TEXT)), rng.randrange(2**32))
        for number in range(count)
    ]


def joins_of(pcm: bytes) -> Joins:
    """The joins in PCM, each with a pause of exact zeros."""
    samples = np.frombuffer(pcm, "<i2").astype(np.int32)
    steps = np.abs(np.diff(samples))
    sounding = np.flatnonzero(samples)
    before = np.flatnonzero(np.diff(sounding) > MIN_PAUSE_SECONDS * SAMPLE_RATE)
    at = np.concatenate([sounding[before], sounding[before + 1] - 1])
    inside = np.delete(steps, at)
    return Joins(len(before), int(steps[at].max(initial=0)), int(inside.max(initial=0)))


def run(plan: StreamPlan) -> StreamReport:
    """Run the fault test. Raises ServerError if the server does not start, or ends."""
    with tempfile.TemporaryDirectory(prefix="chorus-chaos-") as name:
        folder, run_dir = Path(name), Path(name) / "run"
        report_progress(f"starting {plan.workers} workers")
        settings = {"run_dir": run_dir, "cache_mib": 0}
        with start_chorus("chorus", engine=ENGINE, workers=plan.workers, folder=folder, settings=settings) as server:
            return asyncio.run(_run(server, run_dir, plan))


async def _run(server: Server, run_dir: Path, plan: StreamPlan) -> StreamReport:
    report_progress(f"hearing {plan.listeners} texts without faults")
    async with client(server.url) as http:
        twins = await hear_undisturbed(http, draw_texts(plan.listeners, plan.seed))
    undisturbed = Listeners(server.url, twins, plan.seed)
    peak = await peak_memory(server, _hear(undisturbed, plan.listeners, min(UNDISTURBED_SECONDS, plan.duration)))
    before = replace(await asyncio.to_thread(take_snapshot, server, run_dir), balancer_bytes=peak)
    report_progress(f"{plan.listeners} listeners, and workers killed for {plan.duration:g} s")
    disturbed, killer = Listeners(server.url, twins, plan.seed + 1), WorkerKiller(server, plan)
    killing = asyncio.create_task(killer.run())
    await _hear(disturbed, plan.listeners, plan.duration)
    killing.cancel()
    with suppress(asyncio.CancelledError):
        await killing
    report_progress("waiting until the server is idle")
    invariants = await asyncio.to_thread(check_invariants, server, before, workers=plan.workers, run_dir=run_dir)
    metrics = (await asyncio.to_thread(httpx.get, f"{server.url}/metrics", trust_env=False)).text
    retries = sum(float(line.split()[1]) for line in metrics.splitlines() if line.startswith("chorus_retries_total "))
    joins = [joins_of(twin.pcm) for twin in twins]
    checks = check_streams(undisturbed.heard, disturbed.heard, killer.outages, joins)
    return StreamReport(undisturbed.heard, disturbed.heard, killer.outages, joins, retries, checks + invariants)


async def _hear(listeners: Listeners, count: int, seconds: float) -> None:
    hearing = asyncio.create_task(listeners.run(count))
    await asyncio.wait([hearing], timeout=seconds)
    listeners.stop()
    await hearing


def check_streams(
    undisturbed: Heard, disturbed: Heard, outages: Sequence[tuple[float, float]], joins: Sequence[Joins]
) -> list[Check]:
    """What must hold of the streams."""
    failures = undisturbed.failures + disturbed.failures
    unexplained = unexplained_gaps(disturbed, outages)
    step_at, step_inside = max(join.step_at for join in joins), max(join.step_inside for join in joins)
    return [
        Check("whole streams without kills", _counted(undisturbed), undisturbed.whole > 0),
        Check("whole streams with kills", _counted(disturbed), disturbed.whole > 0),
        Check("failures", ", ".join(f"{count} x {kind}" for kind, count in failures.items()) or "none", not failures),
        Check("workers killed", str(len(outages)), bool(outages)),
        Check("gaps without kills", _gaps(undisturbed.gaps), True),
        Check("gaps with kills", _gaps(disturbed.gaps), True),
        Check("gaps while every worker was there", _gaps(unexplained), len(unexplained) <= len(undisturbed.gaps)),
        Check("joins of segments", str(sum(join.count for join in joins)), all(join.count for join in joins)),
        Check("largest step of a sample, at joins and inside", f"{step_at}, {step_inside}", step_at <= step_inside),
    ]


def unexplained_gaps(heard: Heard, outages: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The gaps in which no worker was missing since the piece before them came."""
    return [
        gap
        for gap, end in zip(heard.gaps, heard.gap_ends, strict=True)
        if not any(killed <= end and gap[0] <= back for killed, back in outages)
    ]


def _counted(heard: Heard) -> str:
    if not heard.first_sounds:
        return str(heard.whole)
    first = f"first sound {median(heard.first_sounds):.2f} s, at most {max(heard.first_sounds):.2f} s"
    return f"{heard.whole} ({heard.seconds:.0f} s of audio; {first})"


def _gaps(gaps: Sequence[tuple[float, float]]) -> str:
    if not gaps:
        return "none"
    lengths = [length for _, length in gaps]
    return f"{len(gaps)}, {sum(lengths):.2f} s in all, at most {max(lengths):.2f} s"
