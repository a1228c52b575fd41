"""The comparison with HAProxy: its results and report as functions, the rest as the program with real workers."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from balancer.load.client import BadAudioError
from balancer.load.driver import RequestRecord
from scripts.benchmarks.balancer_comparison.__main__ import main
from scripts.benchmarks.balancer_comparison.client import utterance_seconds
from scripts.benchmarks.balancer_comparison.measure import CpuUse, LoadRun
from scripts.benchmarks.balancer_comparison.offered_load import OfferedLoad
from scripts.benchmarks.balancer_comparison.report import ComparisonPlan, ComparisonResult, report
from scripts.benchmarks.balancer_comparison.result import Capacity, LoadLevel
from scripts.benchmarks.balancer_comparison.servers import Balancer
from scripts.benchmarks.balancer_comparison.targets import check_targets
from tests.support.bench import TIMEOUT, Bench, bench, invoke
from worker.contract import EndOfUtterance, FrameKind, UtteranceError, encode_frame

REQUESTS = 12
SEED = 384
"""Of this seed, few characters come to texts of all lengths, in the closed loop and in the open one."""
LENGTHS = ("short", "medium", "long")


def run(
    balancer: Balancer,
    latencies: dict[str, Sequence[float]],
    *,
    number: int = 0,
    errors: Sequence[str] = (),
    seconds: float = 10,
) -> LoadRun:
    """A run with these latencies, by length, and short texts that failed with these errors."""
    requests: list[tuple[str, float, str | None]] = [
        (length, latency, None) for length, values in latencies.items() for latency in values
    ]
    requests += [("short", 0.001, error) for error in errors]
    records = [
        RequestRecord(
            intended=float(due),
            lag=0.001,
            latency=latency,
            characters=100,
            length=length,
            repeated=False,
            error=error,
            audio_seconds=None if error else 5.0,
        )
        for due, (length, latency, error) in enumerate(requests)
    ]
    cpu = CpuUse(balancer=0.1, idle_balancer=0.01, workers=1.5, client=0.2, others=0.02)
    return LoadRun(balancer, number, 100 * len(records), seconds, tuple(records), cpu)


def alike(seconds: float) -> dict[str, Sequence[float]]:
    return {length: [seconds] * 4 for length in LENGTHS}


def level(chorus: LoadRun, haproxy: LoadRun) -> LoadLevel:
    return LoadLevel(80, [1.0], [chorus, haproxy])


def targets_met(chorus: LoadRun, haproxy: LoadRun) -> dict[str, bool]:
    """Whether each target is met, by its first words."""
    return {" ".join(result.target.split()[:3]): result.met for result in check_targets(level(chorus, haproxy))}


def missed(chorus: LoadRun, haproxy: LoadRun) -> list[str]:
    """The targets that are not met."""
    return [target for target, met in targets_met(chorus, haproxy).items() if not met]


# The load


def test_a_load_depends_on_seed_and_number_alone() -> None:
    assert OfferedLoad.draw(30, seed=1, number=2) == OfferedLoad.draw(30, seed=1, number=2)
    assert OfferedLoad.draw(30, seed=1, number=2) != OfferedLoad.draw(30, seed=2, number=2)


def test_no_text_occurs_in_two_runs() -> None:
    loads = [OfferedLoad.draw(500, seed=1, number=number) for number in range(4)]
    assert len({text.content for load in loads for text in load.texts}) == 2000


def test_the_rate_in_requests_comes_to_the_rate_in_characters() -> None:
    load = OfferedLoad.draw(2000, seed=1, number=0)
    rate = load.rate(1000)
    *_, last = (due for due, _ in zip(load.arrivals(rate), load.texts, strict=False))
    assert load.characters / last == pytest.approx(1000, rel=0.1)


# The answers


def answer(*frames: tuple[FrameKind, bytes]) -> bytes:
    return b"".join(encode_frame(kind, payload) for kind, payload in frames)


def end(samples: int) -> tuple[FrameKind, bytes]:
    return FrameKind.END, EndOfUtterance(id="u", samples=samples, compute_seconds=0.1).model_dump_json().encode()


def test_a_complete_answer_has_the_length_of_its_samples() -> None:
    body = answer((FrameKind.PCM, bytes(4000)), (FrameKind.PCM, bytes(2000)), end(3000))
    assert utterance_seconds(body, 24_000) == 0.125


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "truncated"),
        (answer((FrameKind.PCM, bytes(4000))), "truncated"),
        (answer((FrameKind.PCM, bytes(4000)), end(2000))[:-1], "truncated"),
        (answer((FrameKind.PCM, bytes(4000)), end(2001)), "samples are missing"),
        (answer(end(0)), "samples are missing"),
        (b"<html><body><h1>503 Service Unavailable</h1>", "not in the format"),
        (answer((FrameKind.ERROR, UtteranceError(code="internal", message="").model_dump_json().encode())), "internal"),
    ],
)
def test_an_incomplete_answer_is_bad_audio(body: bytes, reason: str) -> None:
    with pytest.raises(BadAudioError, match=reason):
        utterance_seconds(body, 24_000)


# The results


def test_percentiles_and_their_ratios_are_those_of_all_rounds_together() -> None:
    hundredths = [number / 100 for number in range(101)]
    runs = [
        run(Balancer.CHORUS, {"short": hundredths[:50], "long": [3.0]}),
        run(Balancer.CHORUS, {"short": hundredths[50:]}, number=1),
        run(Balancer.HAPROXY, {"short": [2.0] * 50, "long": [2.0]}),
        run(Balancer.HAPROXY, {"short": [2.0] * 51}, number=1),
    ]
    both = LoadLevel(80, [1.0, 1.0], runs)
    assert both.ratios["short"] == pytest.approx({"p50": 0.25, "p95": 0.475, "p99": 0.495})
    assert both.ratios["long"] == pytest.approx({"p50": 1.5, "p95": 1.5, "p99": 1.5})
    assert both.summaries[Balancer.CHORUS].requests == both.summaries[Balancer.HAPROXY].requests == 102
    assert [single.ratios["short"]["p50"] for single in both.by_round()] == pytest.approx([0.1225, 0.375])


def test_a_length_that_one_balancer_did_not_answer_has_no_ratio() -> None:
    both = level(run(Balancer.CHORUS, {"short": [1.0]}), run(Balancer.HAPROXY, {"short": [1.0], "long": [1.0]}))
    assert both.ratios.keys() == {"short", "all"}


def test_capacity_is_the_mean_of_both_balancers() -> None:
    runs = [
        run(balancer, alike(1.0), seconds=seconds)
        for balancer, seconds in ((Balancer.CHORUS, 6), (Balancer.HAPROXY, 12))
    ]
    capacity = Capacity(8, runs)
    assert [capacity.of(balancer) for balancer in Balancer] == [200, 100]
    assert capacity.characters_per_second == 150


# The targets


def test_all_targets_are_met() -> None:
    chorus = run(Balancer.CHORUS, alike(1.0) | {"short": [0.6] * 4})
    assert set(targets_met(chorus, run(Balancer.HAPROXY, alike(1.0))).values()) == {True}


def test_short_texts_must_be_answered_much_sooner() -> None:
    chorus = run(Balancer.CHORUS, alike(1.0) | {"short": [0.61] * 4})
    assert missed(chorus, run(Balancer.HAPROXY, alike(1.0))) == ["p95 of short"]


@pytest.mark.parametrize("length", LENGTHS)
def test_no_length_may_be_answered_much_later(length: str) -> None:
    haproxy = run(Balancer.HAPROXY, alike(1.0))
    for seconds, met in ((1.2, True), (1.21, False)):
        chorus = run(Balancer.CHORUS, alike(0.5) | {length: [seconds] * 4})
        assert targets_met(chorus, haproxy)[f"p99 of {length}"] is met


@pytest.mark.parametrize(("seconds", "met"), [(10, True), (10.1, True), (10.3, False)])
def test_throughput_is_not_lower(seconds: float, met: bool) -> None:
    chorus = run(Balancer.CHORUS, alike(0.5), seconds=seconds)
    assert targets_met(chorus, run(Balancer.HAPROXY, alike(1.0)))["throughput not lower"] is met


def test_refusals_miss_a_target() -> None:
    refusing = run(Balancer.CHORUS, alike(0.5), errors=["HTTP 429 full"])
    assert missed(refusing, run(Balancer.HAPROXY, alike(1.0))) == ["no more refusals"]


def test_a_target_without_measurements_is_missed() -> None:
    chorus = run(Balancer.CHORUS, {"short": [0.5]})
    expected = ["p99 of medium", "p99 of long", "throughput not lower"]
    assert missed(chorus, run(Balancer.HAPROXY, alike(1.0))) == expected


# The report


def markdown(percent: int = 80, **chorus: Any) -> str:
    runs = [run(Balancer.CHORUS, alike(0.25), **chorus), run(Balancer.HAPROXY, alike(1.0))]
    plan = ComparisonPlan(workers=2, requests=12, warm_up=10, rounds=1, levels=(percent,), seed=0, settings={})
    return report(ComparisonResult(plan, "HAProxy version 2.6", Capacity(8, runs), [LoadLevel(percent, [1.25], runs)]))


def test_the_tables_have_both_balancers_and_their_ratio() -> None:
    text = markdown(errors=["HTTP 429 full", "HTTP 503 not_ready", "timeout"])
    assert "| short | 5 | 250 | 250 | 250 | 1000 | 1000 | 1000 | 0.25 |" in text  # a time-out counts
    assert "| medium | 4 | 250 | 250 | 250 | 1000 | 1000 | 1000 | 0.25 | 0.25 | 0.25 |" in text
    assert "| Chorus | 12 | 2 | 1 | 1.20 | 6.0 | 1.0 | 0.10 | 1.50 | 0.20 | 0.02 |" in text
    assert "Refusals and errors: Chorus: 1 x HTTP 429 full; Chorus: 1 x HTTP 503 not_ready; Chorus: 1 x timeout" in text
    assert "| p99 of long texts at most 1.2x | 250 ms | 1000 ms | 0.25 | met |" in text
    assert "| no more refusals and errors | 3 | 0 | - | NOT met |" in text


def test_every_table_is_rectangular() -> None:
    for table in markdown().split("\n\n"):
        if table.startswith("|"):
            assert len({line.count("|") for line in table.splitlines()}) == 1


def test_the_targets_are_checked_at_one_level_alone() -> None:
    assert "| met |" not in markdown(percent=40)
    assert "The targets were not checked: 80 % of capacity is not among the levels." in markdown(percent=40)


# The program


@pytest.fixture
def program(run_dir: Path) -> Iterator[Bench]:
    """The program, with its temporary files in `run_dir`."""
    options = ["--rounds=1", f"--requests={REQUESTS}", "--workers=2", "--warm-up=1", f"--seed={SEED}"]
    with bench("balancer_comparison", *options, TMPDIR=str(run_dir)) as program:
        yield program


def leftovers(program: Bench, run_dir: Path) -> list[str]:
    """Processes that still run, and temporary files."""
    return [*program.leftovers(), *map(str, run_dir.glob("chorus-*"))]


def test_both_balancers_answer_the_same_texts_and_the_report_is_consistent(
    program: Bench, run_dir: Path, tmp_path: Path
) -> None:
    file = tmp_path / "result.json"
    process = program.start("--levels=80", "--sjf-window=2", f"--json={file}")
    tables, messages = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 0, messages
    assert leftovers(program, run_dir) == []
    result = json.loads(file.read_text())
    assert result["haproxy"].startswith("HAProxy version ")
    assert result["plan"]["settings"] == {"sjf_window": 2.0}
    texts = OfferedLoad.draw(REQUESTS, seed=SEED, number=3)  # after both warm-ups and the closed loop
    counts = {length: sum(text.length == length for text in texts.texts) for length in LENGTHS}

    [found] = result["levels"]
    for summary in found["balancers"].values():
        # There are more clients than workers, and no request is refused: it is queued.
        assert summary["succeeded"] == summary["requests"] == REQUESTS
        assert summary["errors"] == {}
        answers = {length: latency["requests"] for length, latency in summary["latency_by_length"].items()}
        assert answers == {length: number for length, number in counts.items() if number}
    chorus, haproxy = (found["balancers"][balancer] for balancer in ("chorus", "haproxy"))
    assert chorus["audio_seconds"] == pytest.approx(haproxy["audio_seconds"], rel=0.15)
    assert {run["balancer"] for run in found["runs"]} == {"chorus", "haproxy"}
    assert all(run["cpu"]["workers"] > 0 < run["cpu"]["balancer"] for run in found["runs"])

    for length, ratios in found["ratios"].items():
        pair = [(one["latency_by_length"] | {"all": one["latency"]})[length] for one in (chorus, haproxy)]
        assert ratios == {name: pytest.approx(pair[0][name] / pair[1][name]) for name in ("p50", "p95", "p99")}
    capacity = result["capacity"]
    assert capacity["characters_per_second"] == pytest.approx(sum(capacity["balancers"].values()) / 2)
    assert found["rates"] == [pytest.approx(texts.rate(0.8 * capacity["characters_per_second"]))]

    assert result["targets"][0]["ratio"] == pytest.approx(found["ratios"]["short"]["p95"])
    for target in result["targets"]:
        assert f"| {target['target']} |" in tables
    assert "**80 % of capacity**" in tables
    assert f"| short | {counts['short']} |" in tables
    assert f"| Chorus | {REQUESTS} | 0 | 0 |" in tables
    assert f"| HAProxy | {REQUESTS} | 0 | 0 |" in tables


@pytest.mark.parametrize(
    ("signum", "moment"), [(signal.SIGTERM, "starting 2 workers"), (signal.SIGINT, "capacity, round 1")]
)
def test_an_interruption_leaves_nothing_behind(
    program: Bench, run_dir: Path, signum: signal.Signals, moment: str
) -> None:
    process = program.start("--levels=10", "--requests=4")
    assert process.stderr
    assert any(moment in line for line in process.stderr)

    process.send_signal(signum)
    process.communicate(timeout=TIMEOUT)

    assert process.returncode not in {0, None}
    assert leftovers(program, run_dir) == []


def test_without_haproxy_the_message_has_the_command_that_installs_it(program: Bench) -> None:
    process = program.start("--haproxy=haproxy-that-is-not-here")
    _, messages = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 1
    assert "apt-get install -y --no-install-recommends haproxy" in messages


def test_a_haproxy_that_does_not_start_is_named_with_the_end_of_its_log(
    program: Bench, run_dir: Path, tmp_path: Path
) -> None:
    haproxy = tmp_path / "haproxy"
    haproxy.write_text("#!/bin/sh\necho out of order; exit 3\n")
    haproxy.chmod(0o755)
    process = program.start(f"--haproxy={haproxy}", "--workers=1")
    _, messages = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 1
    assert leftovers(program, run_dir) == []
    assert "haproxy did not start: it ended with 3\nThe end of its log:\nout of order" in messages


@pytest.mark.parametrize("levels", ["", "80,", "80,80", "eighty", "0", "-5", "1.5"])
def test_invalid_levels_are_refused(levels: str) -> None:
    done = invoke(main, f"--levels={levels}")
    assert done.exit_code == 2
    assert "--levels" in done.stderr
