"""The log of a job store that cannot be used."""

from __future__ import annotations

import pytest

from balancer.jobs.outage_log import QUIET_SECONDS, OutageLog
from balancer.jobs.store import JobStoreError
from tests.support.clock import Clock


def test_an_outage_is_logged_once_and_its_cause_is_not_for_clients(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock(0.0)
    outage = OutageLog(clock)
    for _ in range(3):
        clock.now += QUIET_SECONDS / 2
        error = outage.unavailable(JobStoreError("the job store in /var/lib/chorus cannot be used: disk I/O error"))
        assert error.message == "jobs cannot be accepted or looked up at the moment; accepted jobs are not lost"
        assert error.retry_after is not None
    assert len(caplog.records) == 1
    assert "/var/lib/chorus cannot be used: disk I/O error" in caplog.text
    clock.now += QUIET_SECONDS
    outage.unavailable(OSError("another one"))
    assert len(caplog.records) == 2
