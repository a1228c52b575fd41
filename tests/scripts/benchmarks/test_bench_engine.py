"""The comparison of the batched engine with upstream's classes: the real program on tiny models, and its arithmetic."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from scripts.benchmarks.burst import BurstResult, spread_utterances
from scripts.benchmarks.engine.result import Footprint, Result
from scripts.benchmarks.engine.run import Trial
from scripts.support.memory import ProcessMemory
from tests.support.bench import TIMEOUT, bench, tiny_options
from worker.engines.chatterbox.token_budget import token_budget
from worker.precision import Precision, detect_processor

UTTERANCES = 2
LEAST, MOST = 54, 62


def run(side: str, seconds: float, *answers: float, audio: float = 4.0) -> BurstResult:
    return BurstResult(side, 0, seconds, answers or (seconds,), (audio,) * max(1, len(answers)), 0.0, 0.0)


def memory(process: str, private: int, *, peak: int, shared: int = 100) -> ProcessMemory:
    return ProcessMemory(process, private, peak, shared, private + shared, peak + shared)


def trial(side: str, number: int, *, alone: float, together: float, threads: int = 1, models: int = 2) -> Trial:
    return Trial(
        side=side,
        round=number,
        described=side,
        threads=threads,
        models=models,
        ready_seconds=1.0,
        runs={1: [run(side, alone)], 2: [run(side, together, 3.0, together)]},
        stages={"decode": 2.0, "flow": 4.0},
        memory=[memory("worker 0", 50, peak=70), memory("worker 1", 60, peak=90), memory("balancer", 10, peak=10)],
    )


def test_lengths_are_spread_evenly_and_shuffled_in_each_round_in_another_way() -> None:
    rounds = [spread_utterances(16, 75, 150, number) for number in range(3)]
    for jobs in rounds:
        lengths = sorted(token_budget(job.text) for job in jobs)
        assert 72 <= lengths[0] <= 75
        assert 147 <= lengths[-1] <= 150
        assert max(after - before for before, after in pairwise(lengths)) <= 8
    orders = [[token_budget(job.text) for job in jobs] for jobs in rounds]
    assert orders[0] != orders[1] != orders[2]
    assert len({job.seed for jobs in rounds for job in jobs}) == 48
    assert spread_utterances(16, 75, 150, 1) == rounds[1]


def test_one_text_alone_is_of_the_middle_length() -> None:
    [job] = spread_utterances(1, 75, 150, 0)
    assert abs(token_budget(job.text) - 112) <= 3


def test_ratios_are_taken_round_by_round() -> None:
    rounds = [("a", 0, 8.0), ("c-fp32", 0, 4.0), ("c-fp32", 1, 4.0), ("a", 1, 12.0)]
    result = Result("turbo", 2, [trial(side, number, alone=1, together=seconds) for side, number, seconds in rounds])
    assert result.sides == ["a", "c-fp32"]
    assert result.speeds("a", 2) == [pytest.approx(1.0), pytest.approx(2 / 3)]
    assert result.ratios("c-fp32", "a", 2) == [pytest.approx(2), pytest.approx(3)]
    assert result.ratios("c-fp32", "b", 2) == []
    assert result.first_answers("c-fp32", 2) == [3, 3]


def test_stages_are_seconds_of_models_for_a_second_of_audio_and_the_rest_completes_them() -> None:
    result = Result("turbo", 2, [trial("b", 0, alone=1, together=8.0)])
    # Two models for 8 s made 8 s of audio.
    assert result.stages("b") == {"decode": 0.25, "flow": 0.5, "rest": pytest.approx(1.25)}


def test_what_is_shared_is_counted_once_and_a_further_model_by_its_peak() -> None:
    result = Result("turbo", 2, [trial("b", 0, alone=1, together=1)])
    assert result.memory("b") == Footprint(private=120, private_peak=170, shared=100, whole=220, each_model=90)


@pytest.mark.parametrize(("alone", "slower"), [(0.9, []), (1.1, ["c-fp32"])])
def test_a_batched_side_slower_alone_than_stock_on_the_same_threads_is_found(alone: float, slower: list[str]) -> None:
    trials = [
        trial("a", 0, alone=0.5, together=1, threads=2, models=1),
        trial("b", 0, alone=1.0, together=1),
        trial("c-fp32", 0, alone=alone, together=1),
    ]
    assert list(Result("turbo", 2, trials).slower_alone()) == slower


def test_all_sides_speak_the_same_and_the_report_tells_how_fast(tiny_turbo: Path, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    options = ["--rounds", "1", "--utterances", str(UTTERANCES), "--tokens", f"{LEAST}-{MOST}", "--concurrency", "1"]
    with bench("engine", *tiny_options(tiny_turbo), *options) as program:
        process = program.start("--workers", "1", "--slots", "2", "--prompt-seconds", "4", "--json", str(file))
        tables, messages = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, messages
        assert program.leftovers() == []

    [engine] = json.loads(file.read_text())["engines"]
    reduced = [precision for precision in (Precision.BF16, Precision.INT8) if detect_processor().supports(precision)]
    batched = {"c-fp32", *(f"d-{precision}" for precision in reduced)}
    assert set(engine["sides"]) == {"a", "b"} | batched | {f"{side}-4s" for side in batched}
    trials = {trial["side"]: trial for trial in engine["trials"]}
    assert len(trials) == len(engine["trials"])

    # Turbo adds three tokens of silence to each text.
    expected = [(token_budget(job.text) + 3) / 25 for job in spread_utterances(UTTERANCES, LEAST, MOST, 0)]
    speeds = {}
    for side, trial in trials.items():
        [together] = trial["runs"][str(UTTERANCES)]
        assert together["audio_seconds"] == pytest.approx(expected, abs=0.1)
        assert together["audio_seconds"] == trials["a"]["runs"][str(UTTERANCES)][0]["audio_seconds"]
        speeds[side] = sum(together["audio_seconds"]) / together["seconds"]
        assert [len(alone["answers"]) for alone in trial["runs"]["1"]] == [1, 1, 1]

    for side, numbers in engine["sides"].items():
        assert numbers["speeds"] == [pytest.approx(speeds[side])]
        assert numbers["ratios"] == [pytest.approx(speeds[side] / speeds["a"])]
        assert f"| {numbers['described']} | {speeds[side]:.3f} | {speeds[side] / speeds['a']:.2f} |" in tables
        stages = numbers["stages"]
        assert all(stages[stage] > 0 for stage in ("decode", "flow", "vocoder", "watermark"))
        # Of the time that there was no more is accounted for, within what a state's age and rounding make.
        assert sum(stages.values()) == pytest.approx(trials[side]["models"] / speeds[side], rel=0.1)
    described = engine["sides"]["c-fp32"]["described"]
    assert described == "(c) batched fp32, 1 worker, 1 thread each, 2 slots"
    # Weights of 400 MB and more, which the one has copied and the other has mapped.
    assert engine["sides"]["a"]["memory"]["shared"] < 400e6 < engine["sides"]["b"]["memory"]["shared"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sides", "a,x"), "there is no side 'x'"),
        (("--precision", "fp32"), "(c) is measured in fp32"),
        (("--tokens", "10-20"), "--tokens must be two numbers of 54 to 1000"),
        (("--engine", "hibari"), "there is no checkpoint of 'hibari'"),
    ],
)
def test_what_makes_no_sense_is_refused(options: tuple[str, str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.benchmarks.engine", *options],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert done.returncode == 2
    assert message in done.stderr
