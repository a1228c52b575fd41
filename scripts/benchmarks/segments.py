"""A text of twenty sentences on one idle worker and on two, by turns in one run; the audio must be the same bytes.

Both servers run the embedded voice, one thread and one core per worker, without a cache. While one works the other is
idle, and the CPU time of the idle one and of other programs is measured.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.table import Table

from scripts.load.client import BadAudioError, wav_seconds
from scripts.load.texts import SENTENCES
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
) -> None:
    """Measure how much sooner two idle workers have spoken one text than one, and that its audio is the same."""
    interrupt_on_signals()
    if len(os.sched_getaffinity(0)) < max(WORKERS):
        fail("bench_segments", RuntimeError("it needs a core for each of two workers"))
    text = " ".join(SENTENCES[:sentences])
    try:
        with tempfile.TemporaryDirectory(prefix="chorus-bench-") as name, ExitStack() as stack:
            servers = [
                stack.enter_context(
                    start_chorus(
                        f"{workers}-workers",
                        engine=ENGINE,
                        workers=workers,
                        folder=_made(Path(name) / str(workers)),
                        settings=WITHOUT_TIMEOUTS,
                    )
                )
                for workers in WORKERS
            ]
            for server in servers:
                _ask(server, text, seed=0)  # what is done once, at the first text
            answers = dict(_take_turns(servers, text, rounds))
    except (ServerError, BadAudioError) as error:
        fail("bench_segments", error)
    _report(servers, answers, text)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _take_turns(servers: list[Server], text: str, rounds: int) -> Iterator[tuple[str, list[Answer]]]:
    answers: defaultdict[str, list[Answer]] = defaultdict(list)
    for number in range(rounds):
        # The order alternates, so that a machine that heats up or gets busy favours none.
        for server in servers if number % 2 == 0 else reversed(servers):
            answers[server.name].append(answer := _ask(server, text, seed=number))
            report_progress(
                f"round {number + 1} of {rounds}, {server.name}: {answer.seconds:.3f} s; other programs used "
                f"{answer.others_cpu:.2f} cores"
            )
        one, other = (answers[server.name][-1] for server in servers)
        if one.audio != other.audio:
            raise servers[1].failure(f"it made other audio of the text than {servers[0].name}")
    yield from answers.items()


def _ask(server: Server, text: str, *, seed: int) -> Answer:
    with httpx.Client(base_url=server.url, timeout=None, trust_env=False) as client:
        machine, own, started = machine_cpu_seconds(), server.cpu_seconds(), time.perf_counter()
        response = client.post("/tts", json={"text": text, "seed": seed, "format": "wav"})
        seconds = time.perf_counter() - started
    if response.status_code != httpx.codes.OK:
        raise server.failure(f"HTTP {response.status_code}: {response.text[:500]}")
    others = machine_cpu_seconds() - machine - (server.cpu_seconds() - own)
    return Answer(seconds, response.content, max(0.0, others) / seconds)


def _report(servers: list[Server], answers: dict[str, list[Answer]], text: str) -> None:
    one, two = ([answer.seconds for answer in answers[server.name]] for server in servers)
    audio = wav_seconds(answers[servers[0].name][0].audio)
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
