"""First pieces, alone and with further ones, against whole utterances: the first sound, and the cost in throughput.

One engine with random weights, in this process, driven as a worker drives it; the sides take turns. One utterance alone
gives the time of the first sound; then several at once, with new ones in slots that become free, give the throughput.
The token budget alone decides how long an utterance is, so all sides make the same amount of audio. Trained weights
would speak the texts in about as long; a checkpoint of random weights takes each letter for a token, where trained ones
take three.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from balancer.load.texts import SENTENCES
from scripts.support.checkpoints import CheckpointsOption, Size, checkpoint_home, ensure_checkpoint
from scripts.support.console import fail, report_progress, run_command
from scripts.support.markdown import machine, median_text, plural, table
from scripts.support.noise import machine_cpu_seconds
from scripts.support.servers import interrupt_on_signals
from voices.registry import Voice
from worker.cards import MAX_PROMPT_SECONDS
from worker.checkpoints.catalogue import CheckpointError
from worker.contract import Utterance
from worker.cpu_affinity import WAITING
from worker.engines import load
from worker.engines.base import Cancellation, Engine, Samples, VoiceSource
from worker.engines.chatterbox.token_budget import likely_tokens
from worker.options import EngineOptions
from worker.precision import Precision

WHOLE, PIECES, FURTHER = "whole", "first piece", "further pieces"
SIDES = (WHOLE, PIECES, FURTHER)
VOICE = VoiceSource(Voice(name="default", engine="*"), None)


@dataclass(frozen=True)
class Heard:
    """One utterance. Times are in seconds since its slot was given to it."""

    first_sound: float
    end: float
    samples: int
    gapless_start: float
    """The earliest time from which on it could be played without a gap."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Seconds that the engine spent in each stage until the first sound, for whichever utterance."""


@dataclass(frozen=True)
class Run:
    """Utterances of one side."""

    side: str
    seconds: float
    heard: Sequence[Heard]
    others_cpu: float
    """Cores that other programs used."""

    def speed(self, sample_rate: int) -> float:
        """Seconds of audio per second."""
        return sum(each.samples for each in self.heard) / sample_rate / self.seconds


@dataclass
class _Active:
    chunks: Iterator[Samples]
    began: float
    stages_before: Mapping[str, float]
    first_sound: float | None = None
    samples: int = 0
    gapless_start: float = 0.0
    stages: Mapping[str, float] = field(default_factory=dict)

    def add(self, samples: int, sample_rate: int, stages: Mapping[str, float]) -> None:
        """So many further samples are there."""
        now = time.perf_counter() - self.began
        if self.first_sound is None:
            self.first_sound = now
            self.stages = {stage: seconds - self.stages_before.get(stage, 0.0) for stage, seconds in stages.items()}
        self.gapless_start = max(self.gapless_start, now - self.samples / sample_rate)
        self.samples += samples


def utterances(side: str, tokens: Sequence[int], first_piece_tokens: int) -> list[Utterance]:
    """An utterance for each number of tokens."""
    streamed = {
        "playout_deadline": 0.0,
        "first_piece_tokens": first_piece_tokens,
        "further_pieces": side == FURTHER,
    }
    return [
        Utterance.model_validate(
            {
                "id": str(number),
                "text": _text(number, count),
                "voice": VOICE.voice.name,
                "seed": number,
                "token_budget": count,
            }
            | ({} if side == WHOLE else streamed)
        )
        for number, count in enumerate(tokens)
    ]


def _text(number: int, tokens: int) -> str:
    """Sentences that likely take so many tokens."""
    text = SENTENCES[number % len(SENTENCES)]
    for sentence in cycle(SENTENCES):
        if likely_tokens(text) >= tokens:
            break
        text += f" {sentence}"
    return text


def drive(engine: Engine, spoken: Sequence[Utterance]) -> list[Heard]:
    """Advance utterances in turn, as the worker's runner does, each as soon as a slot is free."""
    waiting, heard = list(spoken), list[Heard]()
    active: list[_Active] = []
    while waiting or active:
        while waiting and len(active) < engine.slots:
            chunks = iter(engine.synthesize(waiting.pop(0), VOICE, Cancellation()))
            active.append(_Active(chunks, time.perf_counter(), _stage_seconds(engine)))
        for each in list(active):
            try:
                chunk = next(each.chunks)
            except StopIteration:
                active.remove(each)
                end = time.perf_counter() - each.began
                first_sound = end if each.first_sound is None else each.first_sound
                heard.append(Heard(first_sound, end, each.samples, each.gapless_start, each.stages))
                continue
            if len(chunk):
                each.add(len(chunk), engine.card.sample_rate, _stage_seconds(engine))
    return heard


def run_side(engine: Engine, side: str, tokens: Sequence[int], first_piece_tokens: int) -> Run:
    """Make one side's utterances."""
    cpu, own, began = machine_cpu_seconds(), time.process_time(), time.perf_counter()
    heard = drive(engine, utterances(side, tokens, first_piece_tokens))
    seconds = time.perf_counter() - began
    others = machine_cpu_seconds() - cpu - (time.process_time() - own)
    return Run(side, seconds, heard, max(0.0, others) / seconds)


def _stage_seconds(engine: Engine) -> dict[str, float]:
    """Seconds so far of each stage; empty if the engine does not measure them."""
    return dict(getattr(engine, "stage_seconds", {}))


def main(  # noqa: PLR0917 - each is an option
    engine: Annotated[str, typer.Option(help="A Chatterbox engine.")] = "turbo",
    size: Annotated[Size, typer.Option(help="tiny: few layers of each kind, to test the benchmark.")] = Size.FULL,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the model.")] = 1,
    slots: Annotated[int, typer.Option(min=1, help="Utterances at once.")] = 8,
    precision: Annotated[Precision, typer.Option(help="Precision of the engine.")] = Precision.FP32,
    prompt_seconds: Annotated[
        int, typer.Option(min=2, max=MAX_PROMPT_SECONDS, help="Seconds of the reference clip, at most.")
    ] = MAX_PROMPT_SECONDS,
    tokens: Annotated[int, typer.Option(min=60, max=1000, help="Speech tokens of the utterance that is alone.")] = 150,
    first_piece_tokens: Annotated[int, typer.Option(min=1, help="Speech tokens of a first piece.")] = 25,
    alone: Annotated[bool, typer.Option(help="Measure one utterance alone.")] = True,
    several: Annotated[
        int, typer.Option(min=0, help="Utterances for the throughput, of half as many to all tokens; 0: none.")
    ] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, in each of which all sides have a turn.")] = 2,
    checkpoints: CheckpointsOption = None,
) -> None:
    """Measure first pieces against whole utterances; prints Markdown."""
    interrupt_on_signals()
    counts = [tokens - number * (tokens // 2) // max(1, several - 1) for number in range(several)]
    bursts = [burst for burst, wanted in (([tokens], alone), (counts, several)) if wanted]
    runs: list[tuple[list[int], Run]] = []
    try:
        with checkpoint_home(checkpoints) as home, tempfile.TemporaryDirectory(prefix="chorus-bench-") as cache:
            os.environ.update(WAITING)
            options = EngineOptions(
                engine,
                Path(cache),
                model_dir=ensure_checkpoint(engine, size, home),
                precision=precision,
                prompt_seconds=prompt_seconds,
                slots=slots,
                threads=threads,
            )
            loaded = load(options)
            loaded.prepare(VOICE)
            run_side(loaded, FURTHER, [60], min(30, first_piece_tokens))  # what is compiled or allocated once
            for number in range(rounds):
                for side in SIDES if number % 2 == 0 else reversed(SIDES):
                    for burst in bursts:
                        report_progress(f"round {number + 1} of {rounds}: {side}, {plural(len(burst), 'utterance')}")
                        runs.append((burst, run_side(loaded, side, burst, first_piece_tokens)))
    except CheckpointError as error:
        fail("scripts/bench_first_piece", error)
    typer.echo(
        f"{machine('torch', 'chatterbox-tts')}; random weights\n{engine}, {precision}, {plural(threads, 'thread')}, "
        f"{plural(slots, 'slot')}, first pieces of {first_piece_tokens} tokens"
    )
    for burst in bursts:
        typer.echo(f"\n{plural(len(burst), 'utterance')} of {burst[-1]} to {burst[0]} tokens at once:\n")
        typer.echo(report([run for other, run in runs if other is burst], loaded.card.sample_rate))


def report(runs: Sequence[Run], sample_rate: int) -> str:
    """A table with a row for each side."""
    ends = {side: median(each.end for run in runs if run.side == side for each in run.heard) for side in SIDES}
    speeds = {side: [run.speed(sample_rate) for run in runs if run.side == side] for side in SIDES}
    rows = []
    for side in SIDES:
        firsts = [each.first_sound for run in runs if run.side == side for each in run.heard]
        stages = [each.stages for run in runs if run.side == side for each in run.heard]
        starts = [each.gapless_start for run in runs if run.side == side for each in run.heard]
        rows.append(
            (
                side,
                f"{median(firsts):.2f}",
                f"{median(firsts) / ends[WHOLE]:.3f}",
                f"{median(starts):.2f}",
                f"{ends[side]:.2f}",
                median_text(speeds[side], 3),
                f"{median(speeds[side]) / median(speeds[WHOLE]):.3f}",
                ", ".join(f"{stage} {median(each[stage] for each in stages):.2f}" for stage in stages[0]),
                f"{max(run.others_cpu for run in runs if run.side == side):.2f}",
            )
        )
    return table(
        [
            "side",
            "first sound, s",
            "of the whole's end",
            "without a gap from, s",
            "end, s",
            "audio s/s",
            "of whole",
            "stages to it, s",
            "others' cores",
        ],
        rows,
    )


if __name__ == "__main__":
    run_command(main, "scripts/bench_first_piece")
