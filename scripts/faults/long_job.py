"""A long job under crashes: a chapter is spoken as one job while every process is killed on the way.

The same job is run twice, once undisturbed. Both results must be the same bytes, no segment that was kept may be spoken
again, and the recogniser must understand a sample of the segments.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import signal
import tempfile
import time
import wave
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import psutil
import typer
from rich.console import Console
from rich.table import Table

from balancer.load.texts import SENTENCES, spell_number
from balancer.text.segments import split
from scripts.support.check import Check
from scripts.support.console import JsonOption, fail, report_progress, run_command
from scripts.support.memory import resident_memory
from scripts.support.recogniser import word_errors
from scripts.support.servers import Server, ServerError, interrupt_on_signals, start_chorus
from worker.cards import CARDS

ENGINE = "hibari"
SENTENCES_PER_PARAGRAPH = 6
POLL_INTERVAL_SECONDS = 0.1
PAUSE_SECONDS = 1.0
"""Between two segments: longer than any silence within one, so that the result can be cut into them again."""
MAX_WORD_ERROR_RATE = 0.2


@dataclass(frozen=True)
class LongJobOptions:
    """The job and the kills."""

    characters: int
    kills: int
    workers: int
    sample: int
    """Number of segments that the recogniser is given."""
    seed: int


@dataclass
class Outcome:
    """What became of one job, undisturbed or not."""

    audio: bytes = b""
    seconds: float = 0.0
    """From the request to the result, restarts included."""
    balancer_bytes: int = 0
    """Resident memory of the balancer when it was ready, in its first run."""
    balancer_peak: int = 0
    """The largest of all runs."""
    spoken: int = 0
    """Segments that the workers have spoken to their end, as their log says."""
    kept: tuple[int, ...] = ()
    """Segments that were kept at each kill."""
    repeated: int = 0
    """Segments that were spoken although they were kept."""


def main(
    *,
    characters: Annotated[int, typer.Option(min=1000, max=200_000, help="Length of the chapter.")] = 30_000,
    kills: Annotated[int, typer.Option(min=0, help="How often every process is killed.")] = 2,
    workers: Annotated[int, typer.Option(min=1, help="Workers.")] = 2,
    sample: Annotated[int, typer.Option(min=1, help="Segments that the recogniser is given.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the text and of the sample.")] = 0,
    json_file: JsonOption = None,
) -> None:
    """Start a server, queue a chapter as one job, kill every process on the way, and check the result.

    Exit code: 0 passed, 1 a check does not hold, 2 wrong usage.
    """
    interrupt_on_signals()
    options = LongJobOptions(characters, kills, workers, sample, seed)
    text = compose(characters, seed)
    segments = [segment.text for segment in split(text, "en", CARDS[ENGINE].segments)]
    try:
        with tempfile.TemporaryDirectory(prefix="chorus-long-") as name:
            report_progress(f"{len(text)} characters, {len(segments)} segments; undisturbed")
            calm = run(options, text, segments, Path(name) / "calm", kills=0)
            report_progress(f"the same, killed {kills} times")
            killed = run(options, text, segments, Path(name) / "killed", kills=kills)
    except ServerError as error:
        fail("long_job", error)
    report_progress("recognising a sample of the segments")
    checks = [*check(options, segments, calm, killed)]
    _print(options, segments, calm, killed, checks)
    if json_file is not None:
        outcomes = {name: asdict(outcome) | {"audio": _digest(outcome)} for name, outcome in _named(calm, killed)}
        result = {
            "plan": asdict(options),
            "segments": len(segments),
            "checks": [asdict(one) for one in checks],
        } | outcomes
        json_file.write_text(json.dumps(result, indent=2), encoding="utf-8")
    if not all(one.holds for one in checks):
        raise typer.Exit(1)


def compose(characters: int, seed: int) -> str:
    """A chapter of about so many characters, in paragraphs, of which no two have the same first sentence."""
    rng = random.Random(f"chapter {seed}")
    paragraphs: list[str] = []
    while sum(map(len, paragraphs)) < characters:
        sentences = rng.sample(SENTENCES, SENTENCES_PER_PARAGRAPH)
        paragraphs.append(f"Number {spell_number(len(paragraphs))}. {' '.join(sentences)}")
    return "\n\n".join(paragraphs)[:characters].rpartition(".")[0] + "."


def run(options: LongJobOptions, text: str, segments: list[str], folder: Path, *, kills: int) -> Outcome:
    """Have the text spoken as one job, by servers that are killed so often. Raises ServerError."""
    folder.mkdir()
    settings: dict[str, object] = {"log_format": "json", "log_text": "true"}
    pause = round(PAUSE_SECONDS * 1000)
    settings |= dict.fromkeys(("clause_pause_ms", "sentence_pause_ms", "paragraph_pause_ms"), pause)
    outcome = Outcome()
    job_id, started = "", time.perf_counter()
    for number in range(kills + 1):
        kept = list(_kept(folder, job_id)) if job_id else []
        missing = Counter(text for index, text in enumerate(segments) if index not in kept)
        with start_chorus(
            f"run-{number}",
            engine=ENGINE,
            workers=options.workers,
            folder=folder,
            settings=settings | {"run_dir": folder / f"run-{number}"},
        ) as server:
            (balancer,) = server.processes_of("balancer")
            if not job_id:
                outcome.balancer_bytes, _ = resident_memory(balancer)
                started = time.perf_counter()
                job_id = _queue(server, text, options.seed)
            if number < kills:
                _await(server, job_id, segments_done=len(segments) * (number + 1) // (kills + 1))
                outcome.balancer_peak = max(outcome.balancer_peak, resident_memory(balancer)[1])
                _kill(server)
                outcome.kept += (len(list(_kept(folder, job_id))),)
            else:
                _await(server, job_id)
                outcome.seconds = time.perf_counter() - started
                outcome.audio = httpx.get(f"{server.url}/audio/{job_id}", timeout=None, trust_env=False).content
                outcome.balancer_peak = max(outcome.balancer_peak, resident_memory(balancer)[1])
        spoken = Counter(_spoken(folder / f"run-{number}.log"))
        outcome.spoken += spoken.total()
        outcome.repeated += (spoken - missing).total()
    return outcome


def check(options: LongJobOptions, segments: list[str], calm: Outcome, killed: Outcome) -> Iterator[Check]:
    """What must hold of the two runs."""
    yield Check("the same audio as undisturbed", _digest(killed)[:16], killed.audio == calm.audio)
    pieces = cut(killed.audio)
    yield Check("segments in the audio", f"{len(pieces)} of {len(segments)}", len(pieces) == len(segments))
    yield Check("segments spoken again that were kept", str(killed.repeated), not killed.repeated)
    extra, most = killed.spoken - len(segments), options.kills * options.workers
    yield Check("segments spoken twice, as they ended at a kill", f"{extra} (at most {most})", extra <= most)
    numbers = random.Random(f"sample {options.seed}").sample(range(min(len(pieces), len(segments))), options.sample)
    counts = [word_errors(segments[number], pieces[number]) for number in numbers]
    rate = sum(count.errors for count in counts) / sum(count.words for count in counts)
    heard = f"{rate:.1%} in {len(numbers)} segments"
    yield Check("word error rate of the recogniser", heard, rate <= MAX_WORD_ERROR_RATE)


def cut(audio: bytes) -> list[bytes]:
    """The segments of a WAV file, each as one: between them is silence of PAUSE_SECONDS, to the sample."""
    with wave.open(io.BytesIO(audio)) as file:
        rate, samples = file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), "<i2")
    loud = np.concatenate(([-1], np.flatnonzero(samples), [len(samples)]))
    gaps = np.flatnonzero(np.diff(loud) > PAUSE_SECONDS * rate)
    ends = [0, *(int(loud[gap]) + 1 for gap in gaps), len(samples)]
    return [_wav(samples[start:end], rate) for start, end in pairwise(ends)]


def _wav(samples: Any, rate: int) -> bytes:
    output = io.BytesIO()
    with wave.open(output, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return output.getvalue()


def _queue(server: Server, text: str, seed: int) -> str:
    body = {"text": text, "seed": seed, "normalize": False}
    answer = httpx.post(f"{server.url}/queue", json=body, timeout=60, trust_env=False)
    if answer.status_code != 202:
        raise server.failure(f"the job was refused: {answer.text}")
    return str(answer.json()["requestId"])


def _await(server: Server, job_id: str, segments_done: int | None = None) -> None:
    """Wait until so many segments are finished; None: until the job is done. Raises ServerError."""
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as http:
        while not (status := http.get(f"/status/{job_id}").json())["ready"]:
            if segments_done is not None and status["segmentsDone"] >= segments_done:
                return
            if status["state"] == "failed":
                raise server.failure(f"the job failed: {status['error']}")
            time.sleep(POLL_INTERVAL_SECONDS)


def _kill(server: Server) -> None:
    """Every process at once, the supervisor first."""
    processes = server.processes()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            os.kill(process.pid, signal.SIGKILL)
    server.process.wait()
    psutil.wait_procs(processes[1:], timeout=10)


def _kept(folder: Path, job_id: str) -> Iterator[int]:
    return (int(file.stem) for file in (folder / "data/jobs/segments" / job_id).glob("*/[0-9]*.pcm"))


def _spoken(log: Path) -> Iterator[str]:
    """The text of each segment that a worker has spoken to its end."""
    for line in log.read_text(encoding="utf-8").splitlines():
        if '"utterance ok"' in line:
            yield json.loads(line)["text"]


def _digest(outcome: Outcome) -> str:
    return hashlib.sha256(outcome.audio).hexdigest()


def _named(calm: Outcome, killed: Outcome) -> list[tuple[str, Outcome]]:
    return [("undisturbed", calm), ("killed", killed)]


def _print(options: LongJobOptions, segments: list[str], calm: Outcome, killed: Outcome, checks: list[Check]) -> None:
    title = f"A job of {options.characters} characters in {len(segments)} segments, killed {options.kills} times"
    table = Table("", *(name for name, _ in _named(calm, killed)), title=title, title_justify="left")
    both = [outcome for _, outcome in _named(calm, killed)]
    table.add_row("seconds", *(f"{outcome.seconds:.1f}" for outcome in both))
    table.add_row("MiB of audio", *(f"{len(outcome.audio) / 2**20:.1f}" for outcome in both))
    table.add_row("segments spoken", *(str(outcome.spoken) for outcome in both))
    table.add_row("segments kept at each kill", *(" ".join(map(str, outcome.kept)) or "-" for outcome in both))
    table.add_row("balancer when ready, MiB", *(f"{outcome.balancer_bytes / 2**20:.0f}" for outcome in both))
    table.add_row("balancer's peak, MiB", *(f"{outcome.balancer_peak / 2**20:.0f}" for outcome in both))
    table.add_section()
    for one in checks:
        table.add_row(one.name, "", one.value, style=None if one.holds else "red")
    Console().print(table)


if __name__ == "__main__":
    run_command(main, "scripts/long_job")
