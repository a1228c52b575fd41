"""The comparison with HAProxy: what it adds up to as functions, the rest as the program before real workers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from scripts.benchmarks.balancer_comparison.client import spoken_seconds
from scripts.benchmarks.balancer_comparison.measure import Cpu, Run
from scripts.benchmarks.balancer_comparison.offered_load import Offer
from scripts.benchmarks.balancer_comparison.report import Plan, Result, report
from scripts.benchmarks.balancer_comparison.result import Capacity, Level
from scripts.benchmarks.balancer_comparison.servers import Side
from scripts.benchmarks.balancer_comparison.targets import judge
from scripts.load.client import BadAudioError
from scripts.load.driver import RequestRecord
from tests.support.harness import environment
from worker.contract import EndOfUtterance, FrameKind, UtteranceError, encode_frame

PROGRAM = ("-m", "scripts.benchmarks.balancer_comparison")
TIMEOUT = 300  # seconds until something that should have happened did not
REQUESTS = 24
LENGTHS = ("short", "medium", "long")


def run(
    side: Side,
    latencies: dict[str, Sequence[float]],
    *,
    number: int = 0,
    errors: Sequence[str] = (),
    seconds: float = 10,
) -> Run:
    """A run with these answers, by length, and short texts that came to these errors."""
    asked: list[tuple[str, float, str | None]] = [
        (length, latency, None) for length, values in latencies.items() for latency in values
    ]
    asked += [("short", 0.001, error) for error in errors]
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
        for due, (length, latency, error) in enumerate(asked)
    ]
    cpu = Cpu(front=0.1, idle_front=0.01, workers=1.5, client=0.2, others=0.02)
    return Run(side, number, 100 * len(records), seconds, tuple(records), cpu)


def alike(seconds: float) -> dict[str, Sequence[float]]:
    return {length: [seconds] * 4 for length in LENGTHS}


def level(chorus: Run, haproxy: Run) -> Level:
    return Level(80, [1.0], [chorus, haproxy])


def verdicts(chorus: Run, haproxy: Run) -> dict[str, bool]:
    """By the aim's first words."""
    return {" ".join(verdict.aim.split()[:3]): verdict.met for verdict in judge(level(chorus, haproxy))}


# What is sent


def test_an_offer_is_settled_by_seed_and_number() -> None:
    assert Offer.draw(30, seed=1, number=2) == Offer.draw(30, seed=1, number=2)
    assert Offer.draw(30, seed=1, number=2) != Offer.draw(30, seed=2, number=2)


def test_no_text_is_sent_twice_in_all_runs() -> None:
    offers = [Offer.draw(500, seed=1, number=number) for number in range(4)]
    assert len({text.content for offer in offers for text in offer.texts}) == 2000


def test_the_rate_is_that_of_the_characters() -> None:
    offer = Offer.draw(2000, seed=1, number=0)
    rate = offer.rate(1000)
    *_, last = (due for due, _ in zip(offer.arrivals(rate), offer.texts, strict=False))
    assert offer.characters / last == pytest.approx(1000, rel=0.1)


# What came back


def answer(*frames: tuple[FrameKind, bytes]) -> bytes:
    return b"".join(encode_frame(kind, payload) for kind, payload in frames)


def end(samples: int) -> tuple[FrameKind, bytes]:
    return FrameKind.END, EndOfUtterance(samples=samples, compute_seconds=0.1).model_dump_json().encode()


def test_a_whole_answer_has_the_length_of_its_samples() -> None:
    body = answer((FrameKind.PCM, bytes(4000)), (FrameKind.PCM, bytes(2000)), end(3000))
    assert spoken_seconds(body, 24_000) == 0.125


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "broken off"),
        (answer((FrameKind.PCM, bytes(4000))), "broken off"),
        (answer((FrameKind.PCM, bytes(4000)), end(2000))[:-1], "broken off"),
        (answer((FrameKind.PCM, bytes(4000)), end(2001)), "samples are missing"),
        (answer(end(0)), "samples are missing"),
        (b"<html><body><h1>503 Service Unavailable</h1>", "no frames"),
        (answer((FrameKind.ERROR, UtteranceError(code="internal", message="").model_dump_json().encode())), "internal"),
    ],
)
def test_an_answer_that_is_not_whole_is_no_audio(body: bytes, said: str) -> None:
    with pytest.raises(BadAudioError, match=said):
        spoken_seconds(body, 24_000)


# What it adds up to


def test_percentiles_are_of_all_rounds_together_and_ratios_of_those() -> None:
    hundredths = [number / 100 for number in range(101)]
    runs = [
        run(Side.CHORUS, {"short": hundredths[:50], "long": [3.0]}),
        run(Side.CHORUS, {"short": hundredths[50:]}, number=1),
        run(Side.HAPROXY, {"short": [2.0] * 50, "long": [2.0]}),
        run(Side.HAPROXY, {"short": [2.0] * 51}, number=1),
    ]
    both = Level(80, [1.0, 1.0], runs)
    assert both.ratios["short"] == pytest.approx({"p50": 0.25, "p95": 0.475, "p99": 0.495})
    assert both.ratios["long"] == pytest.approx({"p50": 1.5, "p95": 1.5, "p99": 1.5})
    assert both.summaries[Side.CHORUS].requests == both.summaries[Side.HAPROXY].requests == 102
    assert [single.ratios["short"]["p50"] for single in both.by_round()] == pytest.approx([0.1225, 0.375])


def test_a_length_that_one_side_never_answered_has_no_ratio() -> None:
    both = level(run(Side.CHORUS, {"short": [1.0]}), run(Side.HAPROXY, {"short": [1.0], "long": [1.0]}))
    assert both.ratios.keys() == {"short", "all"}


def test_capacity_is_the_mean_of_what_both_sides_speak() -> None:
    runs = [run(side, alike(1.0), seconds=seconds) for side, seconds in ((Side.CHORUS, 6), (Side.HAPROXY, 12))]
    capacity = Capacity(8, runs)
    assert [capacity.of(side) for side in Side] == [200, 100]
    assert capacity.characters_per_second == 150


# The aims


def test_all_aims_are_met() -> None:
    chorus = run(Side.CHORUS, alike(1.0) | {"short": [0.6] * 4})
    assert set(verdicts(chorus, run(Side.HAPROXY, alike(1.0))).values()) == {True}


def test_short_texts_must_be_done_much_sooner() -> None:
    chorus = run(Side.CHORUS, alike(1.0) | {"short": [0.61] * 4})
    assert [aim for aim, met in verdicts(chorus, run(Side.HAPROXY, alike(1.0))).items() if not met] == ["p95 of short"]


@pytest.mark.parametrize("length", LENGTHS)
def test_no_length_pays_for_it(length: str) -> None:
    haproxy = run(Side.HAPROXY, alike(1.0))
    for seconds, met in ((1.2, True), (1.21, False)):
        chorus = run(Side.CHORUS, alike(0.5) | {length: [seconds] * 4})
        assert verdicts(chorus, haproxy)[f"p99 of {length}"] is met


@pytest.mark.parametrize(("seconds", "met"), [(10, True), (10.1, True), (10.3, False)])
def test_throughput_is_not_lower(seconds: float, met: bool) -> None:
    chorus = run(Side.CHORUS, alike(0.5), seconds=seconds)
    assert verdicts(chorus, run(Side.HAPROXY, alike(1.0)))["throughput not lower"] is met


def test_refusals_do_not_make_it_quick() -> None:
    refusing = run(Side.CHORUS, alike(0.5), errors=["HTTP 429 full"])
    found = verdicts(refusing, run(Side.HAPROXY, alike(1.0)))
    assert [aim for aim, met in found.items() if not met] == ["no more refusals"]


def test_what_was_not_measured_is_not_met() -> None:
    found = verdicts(run(Side.CHORUS, {"short": [0.5]}), run(Side.HAPROXY, alike(1.0)))
    assert [aim for aim, met in found.items() if not met] == ["p99 of medium", "p99 of long", "throughput not lower"]


# The report


def written(percent: int = 80, **chorus: Any) -> str:
    runs = [run(Side.CHORUS, alike(0.25), **chorus), run(Side.HAPROXY, alike(1.0))]
    plan = Plan(workers=2, requests=12, rounds=1, levels=(percent,), seed=0, settings={})
    return report(Result(plan, "HAProxy version 2.6", Capacity(8, runs), [Level(percent, [1.25], runs)]))


def test_the_tables_tell_both_sides_and_the_ratio() -> None:
    text = written(errors=["HTTP 429 full", "HTTP 503 not_ready", "timeout"])
    assert "| short | 5 | 250 | 250 | 250 | 1000 | 1000 | 1000 | 0.25 |" in text  # the time-out counts
    assert "| medium | 4 | 250 | 250 | 250 | 1000 | 1000 | 1000 | 0.25 | 0.25 | 0.25 |" in text
    assert "| Chorus | 12 | 2 | 1 | 1.20 | 6.0 | 1.0 | 0.10 | 1.50 | 0.20 | 0.02 |" in text
    assert "Refusals and errors: Chorus: 1 x HTTP 429 full; Chorus: 1 x HTTP 503 not_ready; Chorus: 1 x timeout" in text
    assert "| p99 of long texts at most 1.2x | 250 ms | 1000 ms | 0.25 | met |" in text
    assert "| no more refusals and errors | 3 | 0 | - | NOT met |" in text


def test_every_table_is_rectangular() -> None:
    for table in written().split("\n\n"):
        if table.startswith("|"):
            assert len({line.count("|") for line in table.splitlines()}) == 1


def test_the_aims_are_judged_at_one_level_alone() -> None:
    assert "| met |" not in written(percent=40)
    assert "The aims are not judged: 80 % of capacity is not among the levels." in written(percent=40)


# The program


class Bench:
    """Starts the program, its temporary files in `folder`, and finds all that it started or wrote."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[subprocess.Popen[str]] = []
        self._mark = f"BENCH_TEST_{uuid.uuid4().hex}"

    def start(self, *options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *PROGRAM, "--rounds=1", f"--requests={REQUESTS}", "--workers=2", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Every process below inherits the variable, wherever it has gone to.
            env=environment() | {self._mark: "1", "TMPDIR": str(self._folder)},
        )
        self._started.append(process)
        return process

    def end(self) -> None:
        """Let nothing that a failed test started outlive it."""
        for process in self._started:
            if process.returncode is None:
                process.kill()
                process.communicate()

    def left(self) -> list[str]:
        """The commands of its processes that are there still, and the files."""
        found = [str(path) for path in self._folder.glob("chorus-*")]
        for process in psutil.process_iter():
            try:
                if self._mark in process.environ():
                    found.append(" ".join(process.cmdline()))
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found


@pytest.fixture
def bench(run_dir: Path) -> Iterator[Bench]:
    bench = Bench(run_dir)
    yield bench
    bench.end()


def test_both_fronts_answer_the_same_texts_and_the_report_adds_up(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    process = bench.start("--levels=80", "--sjf-window=2", f"--json={file}")
    tables, messages = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 0, messages
    assert bench.left() == []
    result = json.loads(file.read_text())
    assert result["haproxy"].startswith("HAProxy version ")
    assert result["plan"]["settings"] == {"sjf_window": 2.0}
    texts = Offer.draw(REQUESTS, seed=0, number=3)  # after both warm-ups and the closed loop
    counts = {length: sum(text.length == length for text in texts.texts) for length in LENGTHS}

    [found] = result["levels"]
    for summary in found["sides"].values():
        # More clients than workers, and nobody is refused: the others wait in line.
        assert summary["succeeded"] == summary["requests"] == REQUESTS
        assert summary["errors"] == {}
        answers = {length: spread["requests"] for length, spread in summary["latency_by_length"].items()}
        assert answers == {length: number for length, number in counts.items() if number}
    chorus, haproxy = (found["sides"][side] for side in ("chorus", "haproxy"))
    assert chorus["audio_seconds"] == pytest.approx(haproxy["audio_seconds"], rel=1e-3)
    assert {run["side"] for run in found["runs"]} == {"chorus", "haproxy"}
    assert all(run["cpu"]["workers"] > 0 < run["cpu"]["front"] for run in found["runs"])

    for length, ratios in found["ratios"].items():
        pair = [(side["latency_by_length"] | {"all": side["latency"]})[length] for side in (chorus, haproxy)]
        assert ratios == {name: pytest.approx(pair[0][name] / pair[1][name]) for name in ("p50", "p95", "p99")}
    capacity = result["capacity"]
    assert capacity["characters_per_second"] == pytest.approx(sum(capacity["sides"].values()) / 2)
    assert found["rates"] == [pytest.approx(texts.rate(0.8 * capacity["characters_per_second"]))]

    assert [aim["ratio"] for aim in result["aims"][:1]] == [pytest.approx(found["ratios"]["short"]["p95"])]
    for aim in result["aims"]:
        assert f"| {aim['aim']} |" in tables
    assert "**80 % of capacity**" in tables
    assert f"| short | {counts['short']} |" in tables
    assert f"| Chorus | {REQUESTS} | 0 | 0 |" in tables
    assert f"| HAProxy | {REQUESTS} | 0 | 0 |" in tables


@pytest.mark.parametrize(
    ("signum", "moment"), [(signal.SIGTERM, "starting 2 workers"), (signal.SIGINT, "capacity, round 1")]
)
def test_an_interruption_leaves_nothing_behind(bench: Bench, signum: signal.Signals, moment: str) -> None:
    process = bench.start("--levels=10")
    assert process.stderr
    assert any(moment in line for line in process.stderr)

    process.send_signal(signum)
    process.communicate(timeout=TIMEOUT)

    assert process.returncode not in {0, None}
    assert bench.left() == []


def test_without_haproxy_it_says_how_to_come_by_it(bench: Bench) -> None:
    process = bench.start("--haproxy=haproxy-that-is-not-here")
    _, messages = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 1
    assert "apt-get install -y --no-install-recommends haproxy" in messages


def test_a_haproxy_that_does_not_start_is_named_with_the_end_of_its_log(bench: Bench, tmp_path: Path) -> None:
    program = tmp_path / "haproxy"
    program.write_text("#!/bin/sh\necho out of order; exit 3\n")
    program.chmod(0o755)
    process = bench.start(f"--haproxy={program}")
    _, messages = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 1
    assert bench.left() == []
    assert "haproxy did not start: it ended with 3\nThe end of its log:\nout of order" in messages


@pytest.mark.parametrize("levels", ["", "80,", "80,80", "eighty", "0", "-5", "1.5"])
def test_levels_that_are_none_are_refused(bench: Bench, levels: str) -> None:
    process = bench.start(f"--levels={levels}")
    _, messages = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 2
    assert "--levels" in messages
