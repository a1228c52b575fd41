"""The report of the comparison of the batched engine with upstream's classes, as Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from scripts.benchmarks.engine.baselines import EnginePlan
from scripts.benchmarks.engine.result import REST, STAGES, EngineResult
from scripts.support.markdown import machine, median_text, mib, plural, table
from scripts.support.noise import NOISE_CORES
from scripts.support.servers import STOCK_LOCK, STOCK_WORKERS

NONE = "-"


def setting() -> str:
    """One line about the machine and the libraries."""
    return f"{machine('torch', 'chatterbox-tts')}; random weights"


def report(result: EngineResult, plan: EnginePlan) -> str:
    """The report on one engine as Markdown."""
    first_run = result.of(result.baselines[0])[0]
    audio = [seconds for burst in first_run.bursts[plan.utterances] for seconds in burst.audio_seconds]
    parts = [
        f"**{result.engine}**, {plan.size} size: {plural(plan.utterances, 'text')} of {min(audio):.1f} to "
        f"{max(audio):.1f} s, {plural(plan.rounds, 'round')}",
        f"All texts sent at once:\n\n{_speeds(result, plan)}",
        f"Single utterances:\n\n{_single_utterances(result)}",
        f"Seconds of the models' time per second of audio, all texts sent at once:\n\n{_stages(result)}",
        f"Time of the first complete answer, by the number of requests sent at once:\n\n{_first_answers(result, plan)}",
        f"Memory:\n\n{_memory(result)}",
    ]
    return "\n\n".join([*parts, *_remarks(result)])


def write_json(file: Path, plan: EnginePlan, results: Sequence[EngineResult]) -> None:
    """Write all measurements."""
    engines = [
        {
            "engine": result.engine,
            "runs": [asdict(run) for run in result.runs],
            "baselines": {baseline: _summary(result, baseline, plan) for baseline in result.baselines},
        }
        for result in results
    ]
    contents = {"machine": setting(), "plan": asdict(plan), "engines": engines}
    file.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")


def _summary(result: EngineResult, baseline: str, plan: EnginePlan) -> dict[str, object]:
    return {
        "description": _description(result, baseline),
        "speeds": result.speeds(baseline, plan.utterances),
        "ratios": result.ratios(baseline, STOCK_LOCK, plan.utterances),
        "single_utterance_ratios": {other: result.ratios(baseline, other, 1) for other in (STOCK_LOCK, STOCK_WORKERS)},
        "stages": result.stages(baseline),
        "first_answers": {size: result.first_answers(baseline, size) for size in plan.concurrency},
        "memory": asdict(result.memory(baseline)),
    }


def _speeds(result: EngineResult, plan: EnginePlan) -> str:
    rows = []
    for baseline in result.baselines:
        runs = result.of(baseline)
        last = median(max(burst.answers) for run in runs for burst in run.bursts[plan.utterances])
        rows.append(
            [
                _description(result, baseline),
                median_text(result.speeds(baseline, plan.utterances), 3),
                _ratio(result.ratios(baseline, STOCK_LOCK, plan.utterances)),
                f"{last:.1f} s",
                f"{median(run.ready_seconds for run in runs):.0f} s",
            ]
        )
    heading = ("baseline", "audio seconds per second", f"ratio to {STOCK_LOCK}", "last answer after", "ready after")
    return table(heading, rows)


def _single_utterances(result: EngineResult) -> str:
    rows = []
    for baseline in result.baselines:
        ratios = [_ratio(result.ratios(baseline, other, 1)) for other in (STOCK_LOCK, STOCK_WORKERS)]
        rows.append([_description(result, baseline), median_text(result.speeds(baseline, 1), 3), *ratios])
    heading = ("baseline", "audio seconds per second", f"ratio to {STOCK_LOCK}", f"ratio to {STOCK_WORKERS}")
    return table(heading, rows)


def _stages(result: EngineResult) -> str:
    by_baseline = {baseline: result.stages(baseline) for baseline in result.baselines}
    others = {name for stages in by_baseline.values() for name in stages} - {*STAGES, REST}
    names = [*STAGES, *sorted(others), REST]
    rows = [
        [
            _description(result, baseline),
            *(f"{stages.get(name, 0.0):.3f}" for name in names),
            f"{sum(stages.values()):.3f}",
        ]
        for baseline, stages in by_baseline.items()
    ]
    return table(("baseline", *names, "total"), rows)


def _first_answers(result: EngineResult, plan: EnginePlan) -> str:
    rows = [
        [
            _description(result, baseline),
            *(median_text(result.first_answers(baseline, size), 1, " s") for size in plan.concurrency),
        ]
        for baseline in result.baselines
    ]
    return table(("baseline", *map(str, plan.concurrency)), rows)


def _memory(result: EngineResult) -> str:
    rows = []
    for baseline in result.baselines:
        memory = result.memory(baseline)
        sizes = (memory.private, memory.private_peak, memory.shared, memory.total, memory.per_model)
        rows.append([_description(result, baseline), *map(mib, sizes)])
    return table(("baseline", "private", "private peak", "shared", "total", "peak per further model"), rows)


def _remarks(result: EngineResult) -> Iterator[str]:
    others = max(burst.others_cpu for burst in result.bursts)
    yield f"CPU: all other programs used at most {others:.2f} cores."
    if others > NOISE_CORES:
        # The workers run at a lower priority than other programs, the locked server does not.
        yield "WARNING: other programs used the machine: the speeds and ratios are unreliable."
    for baseline in result.slower_alone():
        yield f"WARNING: {baseline} synthesizes a single utterance slower than a stock model with as many threads."


def _description(result: EngineResult, baseline: str) -> str:
    return result.of(baseline)[0].description


def _ratio(ratios: Sequence[float]) -> str:
    return median_text(ratios, 2) if ratios else NONE
