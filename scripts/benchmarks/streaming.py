"""Whole answers against streamed ones: the first sound, the throughput, and how long listeners have nothing to play.

A second server does as Kokoro-FastAPI does: it streams sentence after sentence from one model, which has all the cores.

With --hold, listeners are added until one of them has nothing to play: so many streams does the host hold. Where all
ask at once, the second segments of all have to be spoken while the first ones, which are short, are played; where they
arrive one after the other, the host's throughput is what limits them.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import mean, median
from typing import Annotated

import httpx
import typer

from balancer.load.texts import SENTENCES
from balancer.speech.playout_clock import PlayoutClock
from scripts.support.checkpoints import CheckpointsOption, Size, checkpoint_home, ensure_checkpoint
from scripts.support.console import fail, report_progress, run_command
from scripts.support.markdown import machine, plural, table
from scripts.support.servers import WITHOUT_TIMEOUTS, ServerError, interrupt_on_signals, start_chorus
from worker.cards import CARDS
from worker.checkpoints.catalogue import CHECKPOINTS, CheckpointError
from worker.contract import SAMPLE_BYTES

WHOLE, STREAMED, ONE_MODEL = "whole", "streamed", "streamed by one model"


@dataclass(frozen=True)
class Heard:
    """One answer. Times are in seconds since its request was sent."""

    first_sound: float
    end: float
    audio_seconds: float
    gaps: int
    gap_seconds: float


@dataclass(frozen=True)
class Run:
    """The answers to listeners who asked at the same time."""

    side: str
    listeners: int
    seconds: float
    heard: Sequence[Heard]

    @property
    def throughput(self) -> float:
        """Seconds of audio per second."""
        return sum(answer.audio_seconds for answer in self.heard) / self.seconds


def text_of(number: int, sentences: int) -> str:
    """A text of so many sentences; different numbers have different ones."""
    chosen = [SENTENCES[(number + index) % len(SENTENCES)] for index in range(sentences)]
    return f"Text number {number}. " + " ".join(chosen)


async def listen(client: httpx.AsyncClient, text: str, *, stream: bool, sample_rate: int) -> Heard:
    """Ask for a text as PCM, and hear it as it comes."""
    body = {"text": text, "format": "pcm", "stream": stream}
    clock, first, size = PlayoutClock(), None, 0
    began = time.monotonic()
    async with client.stream("POST", "/tts", json=body, headers={"Cache-Control": "no-store"}) as response:
        response.raise_for_status()
        async for piece in response.aiter_raw():
            now = time.monotonic() - began
            first = now if first is None else first
            clock.sent(len(piece) / SAMPLE_BYTES / sample_rate, now)
            size += len(piece)
    end = time.monotonic() - began
    seconds = size / SAMPLE_BYTES / sample_rate
    return Heard(end if first is None else first, end, seconds, clock.gaps, clock.gap_seconds)


async def run_once(
    url: str, side: str, listeners: int, sentences: int, first_text: int, sample_rate: int, arrival_seconds: float = 0.0
) -> Run:
    """Have `listeners` ask, each for a text of its own, at once or one after the other within `arrival_seconds`."""

    async def arrive(number: int) -> Heard:
        await asyncio.sleep(arrival_seconds * number / listeners)
        text = text_of(first_text + number, sentences)
        return await listen(client, text, stream=side != WHOLE, sample_rate=sample_rate)

    async with httpx.AsyncClient(base_url=url, timeout=None, limits=httpx.Limits(max_connections=None)) as client:
        began = time.monotonic()
        heard = await asyncio.gather(*map(arrive, range(listeners)))
        return Run(side, listeners, time.monotonic() - began, heard)


@dataclass(frozen=True)
class Held:
    """How many streams have no gap, and what the engine makes of whole answers to as many listeners, or to one."""

    listeners: int
    first_sound: float
    """Seconds to it with so many listeners, the median."""
    throughput: float
    """Seconds of audio per second."""

    def __str__(self) -> str:
        share = self.listeners / self.throughput
        return (
            f"{plural(self.listeners, 'stream')} without a gap, first sound after {self.first_sound:.2f} s; "
            f"whole answers to {plural(max(1, self.listeners), 'listener')}: "
            f"{self.throughput:.2f} audio s/s; ratio {share:.2f}"
        )


async def find_held(url: str, sentences: int, sample_rate: int, rounds: int, arrival_seconds: float) -> Held:
    """The most listeners, each with a text of its own, of whom none has a gap in any of `rounds` rounds."""
    asked = 0
    first_sounds: dict[int, list[float]] = {0: [inf]}

    async def has_gap(listeners: int) -> bool:
        nonlocal asked
        for _ in range(rounds):
            run = await run_once(url, STREAMED, listeners, sentences, asked, sample_rate, arrival_seconds)
            asked += listeners
            first_sounds.setdefault(listeners, []).extend(answer.first_sound for answer in run.heard)
            gaps = sum(answer.gaps for answer in run.heard)
            report_progress(f"{plural(listeners, 'listener')}: {plural(gaps, 'gap')}")
            if gaps:
                return True
        return False

    await has_gap(1)  # not counted: the server learns what its audio costs
    low, high = 0, 1  # none has a gap; one has
    while not await has_gap(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if await has_gap(middle) else (middle, high)
    wholes = [await run_once(url, WHOLE, max(1, low), sentences, asked + n * low, sample_rate) for n in range(rounds)]
    return Held(low, median(first_sounds[low]), median(run.throughput for run in wholes))


def main(
    *,
    engine: Annotated[str, typer.Option(help="Engine of the workers.")] = "hibari",
    model_dir: Annotated[
        Path | None, typer.Option(exists=True, help="Folder of the engine's weights; default: random ones.")
    ] = None,
    checkpoints: CheckpointsOption = None,
    workers: Annotated[int, typer.Option(min=1)] = 2,
    slots: Annotated[int, typer.Option(min=1, help="Slots of a worker.")] = 1,
    precision: Annotated[str, typer.Option(help="Precision of a Chatterbox engine.")] = "fp32",
    listeners: Annotated[list[int] | None, typer.Option(min=1, help="Listeners at once; may be repeated.")] = None,
    sentences: Annotated[int, typer.Option(min=1, help="Sentences of a text.")] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each side, which take turns.")] = 3,
    one_model: Annotated[bool, typer.Option(help="Measure a server of one model, too.")] = True,
    hold: Annotated[bool, typer.Option("--hold", help="Find how many listeners have no gap, instead.")] = False,
    arrival_seconds: Annotated[
        float, typer.Option(min=0, help="With --hold: the listeners arrive one after the other within so long.")
    ] = 0.0,
    delay_seconds: Annotated[
        float, typer.Option(min=0, help="Hold the first sound back until the stream has no gap, at most so long.")
    ] = 0.0,
) -> None:
    """Measure whole and streamed answers of one server, and streamed ones of a server of one model, by turns."""
    interrupt_on_signals()
    settings: dict[str, object] = {
        "cache_mib": 0,
        "slots": slots,
        "stream_delay_seconds": delay_seconds,
        **WITHOUT_TIMEOUTS,
    }
    runs: list[Run] = []
    with checkpoint_home(checkpoints) as home, tempfile.TemporaryDirectory(prefix="chorus-streaming-") as folder:
        try:
            if engine in CHECKPOINTS:
                model_dir = model_dir or ensure_checkpoint(engine, Size.FULL, home)
                settings |= {"model_dir": model_dir, "precision": precision}
            with ExitStack() as servers:
                server = servers.enter_context(
                    start_chorus("chorus", engine=engine, workers=workers, folder=Path(folder), settings=settings)
                )
                rate = CARDS[engine].sample_rate
                if hold:
                    held = asyncio.run(find_held(server.url, sentences, rate, rounds, arrival_seconds))
                    typer.echo(f"{machine()}\n{engine}, {plural(workers, 'worker')}: {held}")
                    return
                urls = {WHOLE: server.url, STREAMED: server.url}
                if one_model:
                    (alone := Path(folder) / "one").mkdir()
                    cores, options = len(os.sched_getaffinity(0)), settings | {"slots": 1}
                    server = servers.enter_context(
                        start_chorus("one", engine=engine, workers=1, threads=cores, folder=alone, settings=options)
                    )
                    urls[ONE_MODEL] = server.url
                first_text = 0
                for count in listeners or [1, 4, 16]:
                    for number in range(rounds):
                        for side in list(urls) if number % 2 else reversed(urls):
                            report_progress(f"{side}, {plural(count, 'listener')}, round {number + 1} of {rounds}")
                            runs.append(asyncio.run(run_once(urls[side], side, count, sentences, first_text, rate)))
                            first_text += count
        except (ServerError, httpx.HTTPError, CheckpointError) as error:
            fail("scripts/bench_streaming", error)
    typer.echo(f"{machine()}\n{engine}, {plural(workers, 'worker')}, texts of {plural(sentences, 'sentence')}\n")
    typer.echo(report(runs))


def report(runs: Sequence[Run]) -> str:
    """A table with a row for each side and number of listeners."""
    rows = []
    for count in sorted({run.listeners for run in runs}):
        whole = [run for run in runs if run.listeners == count and run.side == WHOLE]
        whole_end = median(answer.end for run in whole for answer in run.heard)
        for side in dict.fromkeys((WHOLE, *sorted(run.side for run in runs))):
            chosen = [run for run in runs if run.listeners == count and run.side == side]
            answers = [answer for run in chosen for answer in run.heard]
            first = median(answer.first_sound for answer in answers)
            speed = median(run.throughput for run in chosen)
            rows.append(
                (
                    str(count),
                    side,
                    f"{first:.2f}",
                    f"{first / whole_end:.3f}",
                    f"{median(answer.end for answer in answers):.2f}",
                    f"{speed:.2f}",
                    f"{speed / median(run.throughput for run in whole):.2f}",
                    f"{mean(answer.gaps for answer in answers):.1f}",
                    f"{mean(answer.gap_seconds for answer in answers):.2f}",
                )
            )
    return table(
        [
            "listeners",
            "answer",
            "first sound, s",
            "of the whole's time",
            "end, s",
            "audio s/s",
            "of whole",
            "gaps",
            "gap s",
        ],
        rows,
    )


if __name__ == "__main__":
    run_command(main, "scripts/bench_streaming")
