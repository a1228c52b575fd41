from __future__ import annotations

import os
import subprocess
import sys

import pytest

from balancer.operations.process_cpu import MIN_INTERVAL_SECONDS, CpuUsage, ProcessCpu
from tests.support.clock import Clock
from tests.support.harness import wait_until


def test_seconds_are_counted_by_the_kernel_and_cores_since_the_previous_reading() -> None:
    clock = Clock(100.0)
    cpu = ProcessCpu(clock)
    first = cpu.usage(os.getpid())
    assert first is not None
    assert first.seconds == pytest.approx(sum(os.times()[:2]), abs=0.5)
    start = sum(os.times()[:2])
    while sum(os.times()[:2]) < start + 0.1:
        pass
    clock.now += 2.0
    second = cpu.usage(os.getpid())
    assert second is not None
    assert second.cores == pytest.approx((second.seconds - first.seconds) / 2.0)
    assert second.cores > 0.04


def test_two_readings_at_once_are_the_same() -> None:
    clock = Clock(100.0)
    cpu = ProcessCpu(clock)
    first = cpu.usage(os.getpid())
    clock.now += MIN_INTERVAL_SECONDS / 2
    assert cpu.usage(os.getpid()) is first
    clock.now += MIN_INTERVAL_SECONDS
    assert cpu.usage(os.getpid()) is not first


def test_a_process_that_has_ended_has_no_usage_and_is_dropped() -> None:
    clock = Clock(100.0)
    cpu = ProcessCpu(clock)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    wait_until(lambda: cpu.usage(process.pid) is not None)
    process.kill()
    process.communicate()
    clock.now += 1.0
    cpu.usage(os.getpid())
    assert process.pid not in cpu._readings
    assert cpu.usage(process.pid) is None


def test_a_reused_process_id_starts_from_zero() -> None:
    clock = Clock(100.0)
    cpu = ProcessCpu(clock)
    cpu._readings[os.getpid()] = clock.now, CpuUsage(seconds=1e6, cores=1.0, started_at=1.0)
    clock.now += 1.0
    usage = cpu.usage(os.getpid())
    assert usage is not None
    assert usage.cores >= 0.0
