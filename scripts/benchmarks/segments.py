"""A text of twenty sentences on one idle worker and on two, by turns in one run; the audio must be the same bytes.

Both servers run the embedded voice, one thread and one core per worker, without a cache; or, with --stub-seconds,
workers that answer silence after a fixed time for each segment: what is lost then is the balancer's. While one works
the other is idle, and the CPU time of the idle one and of other programs is measured.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.table import Table

from balancer.load.client import BadAudioError, wav_seconds
from balancer.load.texts import SENTENCES
from scripts.benchmarks.minimal_client import start_balancer
from scripts.support.console import fail, report_progress, run_command
from scripts.support.noise import machine_cpu_seconds
from scripts.support.servers import WITHOUT_TIMEOUTS, Server, ServerError, interrupt_on_signals, start_chorus

ENGINE = "hibari"
WORKERS = (1, 2)


@dataclass(frozen=True)
class Answer:
    """One text, spoken by one server."""

    seconds: float
    """From the request to the last byte."""
    audio: bytes
    others_cpu: float
    """Cores that all other programs used, the idle server included."""


def main(
    sentences: Annotated[int, typer.Option(min=2, max=len(SENTENCES), help="Sentences of the text.")] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, in each of which both have a turn.")] = 10,
    stub_seconds: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds for each segment of stub workers, instead of the voice.")
    ] = None,
) -> None:
    """Measure how much sooner two idle workers have spoken one text than one, and that its audio is the same."""
    interrupt_on_signals()
    if len(os.sched_getaffinity(0)) < max(WORKERS):
        fail("bench_segments", RuntimeError("it needs a core for each of two workers"))
    text = " ".join(SENTENCES[:sentences])
    try:
        with tempfile.TemporaryDirectory(prefix="chorus-bench-") as name, ExitStack() as stack:
            servers = {
                workers: stack.enter_context(_start(workers, Path(name) / str(workers), stub_seconds))
                for workers in WORKERS
            }
            for server in servers.values():
                _ask(server, text, seed=0)  # what is done once, at the first text
            answers = _take_turns(servers, text, rounds)
    except (ServerError, BadAudioError) as error:
        fail("bench_segments", error)
    _report(answers, text)


def _start(workers: int, folder: Path, stub_seconds: float | None) -> AbstractContextManager[Server]:
    folder.mkdir()
    if stub_seconds is not None:
        return _start_stubs(workers, folder, stub_seconds)
    return start_chorus(f"{workers}-workers", engine=ENGINE, workers=workers, folder=folder, settings=WITHOUT_TIMEOUTS)


@contextmanager
def _start_stubs(workers: int, folder: Path, seconds: float) -> Iterator[Server]:
    core, settings = min(os.sched_getaffinity(0)), WITHOUT_TIMEOUTS | {"cache_mib": 0}
    with start_balancer(folder, stubs=workers, core=core, settings=settings, speaking_seconds=seconds) as (server, _):
        yield server


def _take_turns(servers: Mapping[int, Server], text: str, rounds: int) -> dict[int, list[Answer]]:
    answers: dict[int, list[Answer]] = {workers: [] for workers in servers}
    for number in range(rounds):
        # The order alternates, so that a machine that heats up or gets busy favours none.
        for workers in servers if number % 2 == 0 else reversed(list(servers)):
            answers[workers].append(answer := _ask(servers[workers], text, seed=number))
            report_progress(
                f"round {number + 1} of {rounds}, workers: {workers}, {answer.seconds:.3f} s; other programs used "
                f"{answer.others_cpu:.2f} cores"
            )
        one, other = (answers[workers][-1] for workers in WORKERS)
        if one.audio != other.audio:
            raise servers[WORKERS[1]].failure("its audio of the text is not that of one worker")
    return answers


def _ask(server: Server, text: str, *, seed: int) -> Answer:
    with httpx.Client(base_url=server.url, timeout=None, trust_env=False) as client:
        machine, own, started = machine_cpu_seconds(), server.cpu_seconds(), time.perf_counter()
        response = client.post("/tts", json={"text": text, "seed": seed, "format": "wav"})
        seconds = time.perf_counter() - started
    if response.status_code != httpx.codes.OK:
        raise server.failure(f"HTTP {response.status_code}: {response.text[:500]}")
    others = machine_cpu_seconds() - machine - (server.cpu_seconds() - own)
    return Answer(seconds, response.content, max(0.0, others) / seconds)


def _report(answers: Mapping[int, list[Answer]], text: str) -> None:
    one, two = ([answer.seconds for answer in answers[workers]] for workers in WORKERS)
    audio = wav_seconds(answers[WORKERS[0]][0].audio)
    table = Table(
        "workers", "median s", "min s", "max s", title=f"{len(text)} characters, {audio:.1f} s of audio, equal bytes"
    )
    for workers, seconds in zip(WORKERS, (one, two), strict=True):
        table.add_row(str(workers), f"{median(seconds):.3f}", f"{min(seconds):.3f}", f"{max(seconds):.3f}")
    ratios = [after / before for before, after in zip(one, two, strict=True)]
    table.add_row("2 / 1, by rounds", f"{median(ratios):.3f}", f"{min(ratios):.3f}", f"{max(ratios):.3f}")
    Console().print(table)


if __name__ == "__main__":
    run_command(main, "scripts/bench_segments")
