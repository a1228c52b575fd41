from __future__ import annotations

import re

import pytest

from balancer.errors import (
    JobsFullError,
    JobShareFullError,
    JobsUnavailableError,
    LimitsUnavailableError,
    NoHeadroomError,
    NotServingError,
    PoisonedError,
    SynthesisError,
    TooManyConnectionsError,
    TooManyStreamsError,
    VoicesUnavailableError,
)
from balancer.fleet.fleet import WorkerPhase
from balancer.fleet.view import WorkerView
from balancer.operations.history import Value
from balancer.operations.warnings import CAPACITY_REFUSALS, HostWarning, warnings_of
from tests.support.harness import ROOT

QUIET: dict[str, Value] = {"queueWait.p95": None, "loopLag.p99": 0.001, "streams.gaps": 0, "jobs.failed": 0}


def warnings(minute: dict[str, Value] | None = None, *views: WorkerView, draining: bool = False) -> list[HostWarning]:
    return warnings_of(QUIET | (minute or {}), views, draining=draining)


def test_a_quiet_server_has_none() -> None:
    ready = WorkerView(0, WorkerPhase.READY, None, None)
    assert warnings_of(None, [ready], draining=False) == []
    assert warnings({}, ready, WorkerView(1, WorkerPhase.WARMING, None, None)) == []


@pytest.mark.parametrize(
    ("minute", "code", "words"),
    [
        ({"queueWait.p95": 3.42}, "queue_wait", "queue wait above 2 s (3.4 s at the 95th percentile): see"),
        (
            {"refusals.queue_full": 2, "refusals.memory_full": 1, "refusals.rate_limit_exceeded": 9},
            "refusals",
            "requests refused for want of capacity: 3 (2 queue_full, 1 memory_full): see",
        ),
        ({"streams.gaps": 4, "streams.gapSeconds": 1.26}, "stream_gaps", "gaps in streams: 4 (1.3 s together): see"),
        ({"loopLag.p99": 0.3}, "loop_lag", "the event loop wakes 0.3 s too late (99th percentile): see"),
        ({"faults.workersLost": 2}, "workers_lost", "workers lost: 2: see"),
        ({"faults.cacheErrors": 2}, "cache_errors", "errors of the audio cache: 2: see"),
        ({"faults.taskFailures": 1}, "task_failures", "failures of background tasks: 1: see"),
        ({"jobs.failed": 1}, "jobs_failed", "failed jobs: 1: see"),
        ({"webhooks.given_up": 1}, "webhooks_given_up", "webhooks given up: 1: see"),
    ],
)
def test_what_the_last_minute_shows(minute: dict[str, Value], code: str, words: str) -> None:
    [warning] = warnings(minute)
    assert warning.code == code
    assert warning.message.startswith(words)
    assert_described(warning)


@pytest.mark.parametrize("minute", [{"queueWait.p95": 2.0}, {"loopLag.p99": 0.1}, {"refusals.rate_limit_exceeded": 9}])
def test_what_is_as_it_should_be(minute: dict[str, Value]) -> None:
    assert warnings(minute) == []


@pytest.mark.parametrize(("phase", "words"), [(WorkerPhase.FAILED, "has failed"), (WorkerPhase.GONE, "does not run")])
def test_a_worker_that_does_not_serve(phase: WorkerPhase, words: str) -> None:
    [warning] = warnings({}, WorkerView(3, phase, "there are no weights", None))
    assert warning.code == f"worker_{phase}"
    assert warning.message.startswith(f"worker 3 {words} (there are no weights): see")
    assert_described(warning)


def test_a_host_that_is_drained() -> None:
    assert [warning.code for warning in warnings(draining=True)] == ["draining"]


@pytest.mark.parametrize("code", CAPACITY_REFUSALS)
def test_a_refusal_for_want_of_capacity_refers_to_a_row_that_names_its_code(code: str) -> None:
    [warning] = warnings({f"refusals.{code}": 1})
    symptom = warning.message.rpartition('"')[0].rpartition('"')[2]
    assert [row for row in symptoms("docs/operations.md") if symptom in row and code in row]


@pytest.mark.parametrize(
    "code",
    [error.code for error in (LimitsUnavailableError, JobsUnavailableError, JobsFullError, JobShareFullError)]
    + [error.code for error in (SynthesisError, PoisonedError, TooManyStreamsError, NotServingError, NoHeadroomError)]
    + [error.code for error in (VoicesUnavailableError, TooManyConnectionsError)],
)
def test_the_guide_has_the_refusals_that_operators_can_mend(code: str) -> None:
    assert [row for row in symptoms("docs/operations.md") if code in row]


def symptoms(guide: str) -> list[str]:
    """The symptoms in the table of the guide, as plain text."""
    table = (ROOT / guide).read_text().partition("\n| symptom |")[2].partition("\n\n")[0]
    return [row.split(" | ")[0].strip("| ").replace("`", "").lower() for row in table.splitlines()[2:]]


def assert_described(warning: HostWarning) -> None:
    """The guide has the symptom that the warning names."""
    named = re.search(r'see (docs/\S+), "(.+)"$', warning.message)
    assert named is not None
    assert [row for row in symptoms(named[1]) if named[2].lower() in row]
