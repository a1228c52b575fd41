"""The comparison of the batched engine with upstream's classes: the real program on tiny models, and its results."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from scripts.benchmarks.burst import BurstResult, spread_utterances
from scripts.benchmarks.engine.__main__ import main
from scripts.benchmarks.engine.baselines import (
    select_baselines,
    supported_precisions,
    with_other_flows,
    with_shorter_prompts,
)
from scripts.benchmarks.engine.result import EngineResult, Footprint
from scripts.benchmarks.engine.run import BaselineRun
from scripts.support.memory import ProcessMemory
from scripts.support.servers import STOCK_LOCK, STOCK_WORKERS
from tests.support.bench import TIMEOUT, bench, invoke, tiny_options
from worker.engines.chatterbox.token_budget import token_budget
from worker.precision import Precision, Processor, detect_processor

UTTERANCES = 2
MIN, MAX = 58, 62
FP32 = "batched-fp32"


def burst(server: str, seconds: float, *answers: float, audio: float = 4.0) -> BurstResult:
    return BurstResult(server, 0, seconds, answers or (seconds,), (audio,) * max(1, len(answers)), 0.0, 0.0)


def memory(process: str, private: int, *, peak: int, shared: int = 100) -> ProcessMemory:
    return ProcessMemory(process, private, peak, shared, private + shared, peak + shared)


def run(
    baseline: str, number: int, *, single: float, together: float, threads: int = 1, models: int = 2
) -> BaselineRun:
    """A run in round `number` whose bursts of one and of two utterances took so many seconds."""
    return BaselineRun(
        baseline=baseline,
        round=number,
        description=baseline,
        threads=threads,
        models=models,
        ready_seconds=1.0,
        bursts={1: [burst(baseline, single)], 2: [burst(baseline, together, 3.0, together)]},
        stages={"decode": 2.0, "flow": 4.0},
        memory=[memory("worker 0", 50, peak=70), memory("worker 1", 60, peak=90), memory("balancer", 10, peak=10)],
    )


def test_lengths_are_spread_evenly_and_shuffled_differently_in_each_round() -> None:
    rounds = [spread_utterances(16, 75, 150, number) for number in range(3)]
    for utterances in rounds:
        lengths = sorted(token_budget(utterance.text) for utterance in utterances)
        assert 72 <= lengths[0] <= 75
        assert 147 <= lengths[-1] <= 150
        assert max(after - before for before, after in pairwise(lengths)) <= 8
    orders = [[token_budget(utterance.text) for utterance in utterances] for utterances in rounds]
    assert orders[0] != orders[1] != orders[2]
    assert len({utterance.seed for utterances in rounds for utterance in utterances}) == 48
    assert spread_utterances(16, 75, 150, 1) == rounds[1]


def test_a_single_text_has_the_mean_length() -> None:
    [utterance] = spread_utterances(1, 75, 150, 0)
    assert abs(token_budget(utterance.text) - 112) <= 3


def test_ratios_are_taken_round_by_round() -> None:
    rounds = [(STOCK_LOCK, 0, 8.0), (FP32, 0, 4.0), (FP32, 1, 4.0), (STOCK_LOCK, 1, 12.0)]
    runs = [run(baseline, number, single=1, together=seconds) for baseline, number, seconds in rounds]
    result = EngineResult("turbo", 2, runs)
    assert result.baselines == [STOCK_LOCK, FP32]
    assert result.speeds(STOCK_LOCK, 2) == [pytest.approx(1.0), pytest.approx(2 / 3)]
    assert result.ratios(FP32, STOCK_LOCK, 2) == [pytest.approx(2), pytest.approx(3)]
    assert result.ratios(FP32, STOCK_WORKERS, 2) == []
    assert result.first_answers(FP32, 2) == [3, 3]


def test_stages_are_seconds_of_models_per_second_of_audio_and_the_rest_completes_them() -> None:
    result = EngineResult("turbo", 2, [run(STOCK_WORKERS, 0, single=1, together=8.0)])
    # Two models worked for 8 s each, and made 8 s of audio.
    assert result.stages(STOCK_WORKERS) == {"decode": 0.25, "flow": 0.5, "rest": pytest.approx(1.25)}


def test_shared_memory_is_counted_once_and_a_further_model_by_its_peak() -> None:
    result = EngineResult("turbo", 2, [run(STOCK_WORKERS, 0, single=1, together=1)])
    expected = Footprint(private=120, private_peak=170, shared=100, total=220, per_model=90)
    assert result.memory(STOCK_WORKERS) == expected


@pytest.mark.parametrize(("single", "slower"), [(0.9, []), (1.1, [FP32])])
def test_a_batched_engine_slower_than_stock_with_as_many_threads_is_found(single: float, slower: list[str]) -> None:
    runs = [
        run(STOCK_LOCK, 0, single=0.5, together=1, threads=2, models=1),
        run(STOCK_WORKERS, 0, single=1.0, together=1),
        run(FP32, 0, single=single, together=1),
    ]
    assert list(EngineResult("turbo", 2, runs).slower_alone()) == slower


@pytest.mark.parametrize(
    ("sides", "names"),
    [
        (["a", "b", "c", "d"], [STOCK_LOCK, STOCK_WORKERS, FP32, "batched-int8"]),
        (["d", "a"], [STOCK_LOCK, "batched-int8"]),
        ([FP32, "stock-lock"], [STOCK_LOCK, FP32]),
        (["batched-bf16", "d", "c", FP32], [FP32, "batched-bf16", "batched-int8"]),
    ],
)
def test_sides_are_names_or_letters(sides: list[str], names: list[str]) -> None:
    assert [baseline.name for baseline in select_baselines(sides, [Precision.INT8])] == names


def test_the_batched_sides_are_measured_again_with_other_flows() -> None:
    chosen = select_baselines(["a", "c"], [])
    found = [baseline.name for baseline in with_other_flows(chosen, meanflow=True, steps=5)]
    assert found == [STOCK_LOCK, FP32, f"{FP32}-meanflow", f"{FP32}-5-steps"]
    assert with_other_flows(chosen, meanflow=False, steps=None) == chosen


def test_the_batched_sides_are_measured_again_with_shorter_prompts() -> None:
    chosen = select_baselines(["a", "d"], [Precision.BF16, Precision.INT8])
    reduced = ["batched-bf16", "batched-int8"]
    found = [baseline.name for baseline in with_shorter_prompts(chosen, 4)]
    assert found == [STOCK_LOCK, *reduced, *(f"{name}-4s" for name in reduced)]
    assert with_shorter_prompts(chosen, 10) == chosen


@pytest.mark.parametrize(
    ("features", "precisions"),
    [
        (set(), []),
        ({"avx512bw", "avx512_vnni"}, [Precision.INT8]),
        ({"avx512bw", "avx512_vnni", "avx512_bf16"}, [Precision.BF16, Precision.INT8]),
    ],
)
def test_reduced_precisions_are_those_of_the_processor(features: set[str], precisions: list[Precision]) -> None:
    assert supported_precisions(Processor("any", frozenset(features))) == precisions


@pytest.mark.usefixtures("one_core")
def test_all_baselines_make_the_same_audio_and_the_report_has_their_speeds(tiny_turbo: Path, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    options = ["--rounds", "1", "--utterances", str(UTTERANCES), "--tokens", f"{MIN}-{MAX}", "--concurrency", "1"]
    # One reduced precision: each takes two servers.
    reduced = supported_precisions(detect_processor())[-1:]
    options += [word for precision in reduced for word in ("--precision", precision)]
    with bench("engine", *tiny_options(tiny_turbo), *options) as program:
        process = program.start("--workers", "1", "--slots", "2", "--prompt-seconds", "4", "--json", str(file))
        tables, messages = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, messages
        assert program.leftovers() == []

    [engine] = json.loads(file.read_text())["engines"]
    batched = [FP32, *(f"batched-{precision}" for precision in reduced)]
    names = [STOCK_LOCK, STOCK_WORKERS, *batched, *(f"{name}-4s" for name in batched)]
    assert list(engine["baselines"]) == names
    runs = {run["baseline"]: run for run in engine["runs"]}
    assert len(runs) == len(engine["runs"])

    # Turbo adds three tokens of silence to each text.
    expected = [(token_budget(utterance.text) + 3) / 25 for utterance in spread_utterances(UTTERANCES, MIN, MAX, 0)]
    speeds = {}
    for name, run in runs.items():
        [together] = run["bursts"][str(UTTERANCES)]
        assert together["audio_seconds"] == pytest.approx(expected, abs=0.1)
        assert together["audio_seconds"] == runs[STOCK_LOCK]["bursts"][str(UTTERANCES)][0]["audio_seconds"]
        speeds[name] = sum(together["audio_seconds"]) / together["seconds"]
        assert [len(single["answers"]) for single in run["bursts"]["1"]] == [1, 1, 1]

    for name, summary in engine["baselines"].items():
        ratio = speeds[name] / speeds[STOCK_LOCK]
        assert summary["speeds"] == [pytest.approx(speeds[name])]
        assert summary["ratios"] == [pytest.approx(ratio)]
        assert f"| {summary['description']} | {speeds[name]:.3f} | {ratio:.2f} |" in tables
        stages = summary["stages"]
        assert all(stages[stage] > 0 for stage in ("decode", "flow", "vocoder", "watermark"))
        # The stages do not exceed the available time, within the age of a state and rounding.
        assert sum(stages.values()) == pytest.approx(runs[name]["models"] / speeds[name], rel=0.1)
    assert engine["baselines"][FP32]["description"] == "batched-fp32: 1 worker, 1 thread each, 2 slots"
    # Weights of more than 400 MB: copied by stock-lock, mapped by stock-workers.
    private = {name: engine["baselines"][name]["memory"]["private"] for name in (STOCK_LOCK, STOCK_WORKERS)}
    assert private[STOCK_LOCK] > private[STOCK_WORKERS] + 300e6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sides", "a,x"), "there is no side 'x'"),
        (("--precision", "fp32"), "fp32 is not a reduced precision"),
        (("--tokens", "10-20"), "--tokens must be two numbers of 58 to 1000"),
        (("--engine", "hibari"), "there is no checkpoint of 'hibari'"),
    ],
)
def test_invalid_options_are_refused(options: tuple[str, str], message: str) -> None:
    done = invoke(main, *options)
    assert done.exit_code == 2
    assert message in done.stderr
