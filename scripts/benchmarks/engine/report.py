"""What came of bench_engine.py, as Markdown for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from scripts.benchmarks.engine.baselines import Plan
from scripts.benchmarks.engine.result import REST, STAGES, Result
from scripts.support.markdown import machine, median_text, mib, plural, table
from scripts.support.noise import NOISE_CORES

NONE = "-"


def setting() -> str:
    """What all of it runs on, in a line."""
    return f"{machine('torch', 'chatterbox-tts')}; random weights"


def report(result: Result, plan: Plan) -> str:
    """The result as Markdown."""
    audio = [seconds for run in result.of(result.sides[0])[0].runs[plan.utterances] for seconds in run.audio_seconds]
    parts = [
        f"**{result.engine}**, {plan.size} size: {plural(plan.utterances, 'text')} of {min(audio):.1f} to "
        f"{max(audio):.1f} s, {plural(plan.rounds, 'round')}",
        f"All texts sent at once:\n\n{_speeds(result, plan)}",
        f"One utterance alone:\n\n{_alone(result)}",
        f"Seconds of a model's time for each second of audio, all texts sent at once:\n\n{_stages(result)}",
        f"Until the first answer is there, whole, by how many requests were sent at once:\n\n{_first(result, plan)}",
        f"Memory:\n\n{_memory(result)}",
    ]
    return "\n\n".join([*parts, *_doubts(result)])


def write_json(file: Path, plan: Plan, results: Sequence[Result]) -> None:
    """Keep every number, for programs."""
    engines = [
        {
            "engine": result.engine,
            "trials": [asdict(trial) for trial in result.trials],
            "sides": {side: _numbers(result, side, plan) for side in result.sides},
        }
        for result in results
    ]
    contents = {"machine": setting(), "plan": asdict(plan), "engines": engines}
    file.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")


def _numbers(result: Result, side: str, plan: Plan) -> dict[str, object]:
    return {
        "described": _name(result, side),
        "speeds": result.speeds(side, plan.utterances),
        "ratios": result.ratios(side, "a", plan.utterances),
        "alone": {other: result.ratios(side, other, 1) for other in ("a", "b")},
        "stages": result.stages(side),
        "first_answers": {together: result.first_answers(side, together) for together in plan.concurrency},
        "memory": asdict(result.memory(side)),
    }


def _speeds(result: Result, plan: Plan) -> str:
    rows = []
    for side in result.sides:
        last = median(max(run.answers) for trial in result.of(side) for run in trial.runs[plan.utterances])
        ready = median(trial.ready_seconds for trial in result.of(side))
        rows.append(
            [
                _name(result, side),
                median_text(result.speeds(side, plan.utterances), 3),
                _ratio(result.ratios(side, "a", plan.utterances)),
                f"{last:.1f} s",
                f"{ready:.0f} s",
            ]
        )
    return table(("side", "audio seconds a second", "ratio to (a)", "last answer after", "ready after"), rows)


def _alone(result: Result) -> str:
    rows = []
    for side in result.sides:
        ratios = [_ratio(result.ratios(side, other, 1)) for other in ("a", "b")]
        rows.append([_name(result, side), median_text(result.speeds(side, 1), 3), *ratios])
    return table(("side", "audio seconds a second", "ratio to (a)", "ratio to (b)"), rows)


def _stages(result: Result) -> str:
    by_side = {side: result.stages(side) for side in result.sides}
    further = {name for stages in by_side.values() for name in stages} - {*STAGES, REST}
    names = [*STAGES, *sorted(further), REST]
    rows = [
        [_name(result, side), *(f"{stages.get(name, 0.0):.3f}" for name in names), f"{sum(stages.values()):.3f}"]
        for side, stages in by_side.items()
    ]
    return table(("side", *names, "in all"), rows)


def _first(result: Result, plan: Plan) -> str:
    rows = [
        [
            _name(result, side),
            *(median_text(result.first_answers(side, count), 1, " s") for count in plan.concurrency),
        ]
        for side in result.sides
    ]
    return table(("side", *map(str, plan.concurrency)), rows)


def _memory(result: Result) -> str:
    rows = []
    for side in result.sides:
        memory = result.memory(side)
        sizes = (memory.private, memory.private_peak, memory.shared, memory.whole, memory.each_model)
        rows.append([_name(result, side), *map(mib, sizes)])
    return table(("side", "private", "its peak", "shared", "in all", "a further model costs, at its peak"), rows)


def _doubts(result: Result) -> Iterator[str]:
    others = max(run.others_cpu for run in result.runs)
    yield f"CPU: everything else on the machine took at most {others:.2f} cores."
    if others > NOISE_CORES:
        # The workers are nicer than other programs, the locked server is not: others slow them the more.
        yield "WARNING: the machine was not quiet: trust neither the speeds nor the ratios."
    for side in result.slower_alone():
        yield f"WARNING: {side} speaks one utterance alone slower than stock on the same threads."


def _name(result: Result, side: str) -> str:
    return result.of(side)[0].described


def _ratio(ratios: Sequence[float]) -> str:
    return median_text(ratios, 2) if ratios else NONE
