"""The attack test: a few quick attacks end to end, and that it notices what others lose."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from scripts.attacks.attack import Attack, Checks, Criteria, Outcome, all_spoken
from scripts.attacks.bystander import Observation
from scripts.attacks.catalogue import ATTACKS
from scripts.attacks.resources import Peaks
from scripts.attacks.runner import common_checks, run_attacks
from scripts.attacks.steady_client import Record
from scripts.attacks.target import Target
from scripts.attacks.wire import REFUSED, NoAnswerError, parse_answer
from scripts.attacks.workers import OddWorkerPlan
from scripts.support.check import Check
from scripts.support.markdown import mib
from tests.support.harness import ROOT, environment

TIMEOUT = 400.0

QUICK = ("odd-worker-garbage", "webhook-addresses")
"""Attacks of a few seconds."""
LATENCY = "others' p99 of a cached answer, before and during"
"""This check is left out here: other tests take CPU time meanwhile."""

FAST_SERVER = OddWorkerPlan("garbage")
"""No file in its folder says that its second worker is to be odd: both answer at once."""


def attack_command(*options: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "scripts/attack"), *options]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=TIMEOUT, check=False)


def test_quick_attacks_end_to_end(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    only = [f"--only={name}" for name in QUICK]
    done = attack_command(*only, "--duration=2", f"--json={file}")
    assert file.exists(), done.stdout + done.stderr
    outcomes = {outcome["name"]: outcome for outcome in json.loads(file.read_text())}
    assert list(outcomes) == [attack.name for kind in ATTACKS.values() for attack in kind if attack.name in QUICK]
    for outcome in outcomes.values():
        assert [check for check in outcome["checks"] if not check["holds"] and check["name"] != LATENCY] == []
        assert outcome["calm_p99"] > 0
        assert outcome["attacked_p99"] > 0
        assert outcome["peak_memory"] > 2**20
        assert outcome["name"] in done.stdout
    assert done.returncode == (0 if all(outcome["held"] for outcome in outcomes.values()) else 1)


def test_an_unknown_attack_is_wrong_usage() -> None:
    done = attack_command("--only=nothing")
    assert done.returncode == 2
    assert "there is no attack nothing" in done.stderr


def test_every_attack_has_a_name_of_its_own() -> None:
    names = [attack.name for attacks in ATTACKS.values() for attack in attacks]
    assert len(set(names)) == len(names)
    assert not set(names) & ATTACKS.keys()


async def nothing(_: Target) -> Checks:
    return [Check("nothing happens", "yes", holds=True)]


async def kill_the_balancer(target: Target) -> Checks:
    balancer = target.balancer()
    assert balancer is not None
    balancer.kill()
    return []


async def fail(_: Target) -> Checks:
    raise NoAnswerError("no answer")


def outcomes_of(*attacks: Attack) -> dict[str, Outcome]:
    return {outcome.name: outcome for outcome in run_attacks(attacks, duration=1)}


def broken(outcome: Outcome) -> set[str]:
    return {check.name for check in outcome.checks if not check.holds} - {LATENCY}


def test_what_an_attack_costs_others_is_reported() -> None:
    outcomes = outcomes_of(
        Attack("harmless", "nothing", nothing, FAST_SERVER),
        Attack("failing", "does not run to its end", fail, FAST_SERVER),
        Attack("deadly", "the balancer is killed, and nothing restarts it", kill_the_balancer, FAST_SERVER),
    )
    assert broken(outcomes["harmless"]) == set()
    assert outcomes["harmless"].failures == 0
    assert outcomes["harmless"].usable
    assert broken(outcomes["failing"]) == {"the attack ran to its end"}
    deadly = outcomes["deadly"]
    assert {"others' failed requests", "the balancer is the same process", "a new text afterwards"} <= broken(deadly)
    assert deadly.failures > 10
    assert not deadly.usable


@dataclass(frozen=True)
class SmallBoundPlan:
    """A server whose bound of memory is less than it takes."""

    @contextmanager
    def start(self, folder: Path, duration: float) -> Iterator[Target]:
        with FAST_SERVER.start(folder, duration) as target:
            yield replace(target, settings={"memory_mib": 1})


def test_a_balancer_far_over_its_bound_is_killed_and_reported() -> None:
    outcome = outcomes_of(Attack("large", "nothing", nothing, SmallBoundPlan()))["large"]
    assert "memory of the balancer" in broken(outcome)
    assert any("killed for it" in check.value for check in outcome.checks)


def observation(*seconds: float, error: str | None = None) -> Observation:
    return Observation([Record(number, time.monotonic(), value, error) for number, value in enumerate(seconds)])


CALM = observation(*[0.03] * 100)


def common(attacked: Observation, criteria: Criteria | None = None, memory: int = 0) -> list[bool]:
    attack = Attack("attack", "an attack", nothing, criteria=criteria or Criteria())
    return [check.holds for check in common_checks(attack, CALM, attacked, Peaks(memory), 2**30)]


def test_latencies_hold_up_to_five_times_calm_or_a_tenth_of_a_second() -> None:
    assert common(observation(*[0.14] * 100)) == [True, True, True]
    assert common(observation(*[0.16] * 100)) == [False, True, True]
    assert common(observation(*[0.01] * 99, 9.0)) == [True, True, True]
    assert common(observation(*[0.01] * 98, 9.0, 9.0)) == [False, True, True]
    fast = Attack("attack", "an attack", nothing)
    checks = common_checks(fast, observation(0.001), observation(0.09), Peaks(), 2**30)
    assert all(check.holds for check in checks)


def test_a_server_that_answers_nobody_does_not_hold() -> None:
    assert common(observation()) == [False, True, True]


def test_failures_refusals_and_memory() -> None:
    failed = observation(0.01, error="HTTP 503")
    refused = observation(0.01, error=REFUSED)
    assert common(failed) == [True, False, True]
    assert common(failed, Criteria(failures=False)) == [True, True, True]
    assert common(refused, Criteria(failures=False)) == [True, False, True]
    assert common(CALM, memory=2**30 + 1) == [True, True, False]
    assert mib(2**30) == "1,024 MiB"


def test_requests_that_are_not_spoken_are_counted() -> None:
    assert all_spoken("texts", ["200", "200"]).holds
    check = all_spoken("texts", ["200", "500", "500"])
    assert not check.holds
    assert check.value == "1 of 3 are 200, 2 500"


@pytest.mark.parametrize(
    "received",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", b"nonsense\r\n\r\n"],
    ids=["none", "torn", "odd"],
)
def test_an_incomplete_answer_is_none(received: bytes) -> None:
    with pytest.raises(NoAnswerError, match="broken"):
        parse_answer(received)


def test_an_interim_answer_is_passed_over() -> None:
    answer = parse_answer(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    assert (answer.status, answer.body) == (200, b"hi")
