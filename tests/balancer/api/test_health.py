"""`/health`, `/ready` and `/metrics` of a real balancer, with workers in every phase."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from balancer.fleet.fleet import WorkerPhase
from tests.support.harness import TIMEOUT, start_balancer, start_stub, wait_until
from worker.contract import Phase


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def get(url: str, path: str) -> tuple[int, dict[str, Any]]:
    response = httpx.get(f"{url}{path}", timeout=TIMEOUT, trust_env=False)
    report: dict[str, Any] = response.json()
    return response.status_code, report


def samples(url: str) -> dict[str, float]:
    """Every sample by its name and its sorted label values."""
    text = httpx.get(f"{url}/metrics", timeout=TIMEOUT, trust_env=False).text
    return {
        " ".join([sample.name, *sorted(sample.labels.values())]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_phase_is_distinguished(run_dir: Path, processes: ExitStack) -> None:
    phases = [Phase.READY, Phase.READY, Phase.STARTING, Phase.WARMING, Phase.FAILED, Phase.READY, Phase.READY]
    stubs = [processes.enter_context(start_stub(run_dir, index, phase=phase)) for index, phase in enumerate(phases)]
    url = processes.enter_context(start_balancer(run_dir, ready=4))
    stubs[5].process.kill()
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(stubs[6].path))) as client:
        client.post("http://worker/drain")
    expected = [WorkerPhase.READY, WorkerPhase.READY, WorkerPhase.STARTING, WorkerPhase.WARMING, WorkerPhase.FAILED]
    wait_until(lambda: [worker["phase"] for worker in get(url, "/health")[1]["workers"]] == [*expected, "gone", "gone"])
    status, ready = get(url, "/ready")
    assert (status, ready["ready"], ready["reason"]) == (200, True, None)
    assert ready["phases"] == {
        "starting": 1,
        "warming": 1,
        "ready": 2,
        "busy": 0,
        "draining": 0,
        "failed": 1,
        "gone": 2,
    }
    assert ready["reasons"]["4"] == "there are no weights; run: make weights"
    assert ready["reasons"].keys() == {"4", "5", "6"}
    codes = [warning["code"] for warning in get(url, "/health")[1]["warnings"]]
    assert codes[:3] == ["worker_failed", "worker_gone", "worker_gone"]
    found = samples(url)
    assert {phase: found[f"chorus_workers {phase}"] for phase in WorkerPhase} == ready["phases"]
    assert found["chorus_worker_state 3 warming"] == 1
    assert found["chorus_worker_state 3 ready"] == 0
    assert (found["chorus_slots"], found["chorus_slots_free"]) == (2, 2)
    assert found["chorus_worker_cpu_seconds_total 0"] > 0
    assert "chorus_worker_cpu_ratio 5" not in found


def test_the_version_is_told_everywhere_and_what_does_not_work_in_words(run_dir: Path, processes: ExitStack) -> None:
    processes.enter_context(start_stub(run_dir))
    url = processes.enter_context(start_balancer(run_dir, ready=1, data_dir="/proc/chorus"))
    version = get(url, "/openapi.json")[1]["info"]["version"]
    assert get(url, "/health")[1]["version"] == version
    assert {"chorus_build_info", *version.split("+")} in [set(name.split()) for name in samples(url)]
    wait_until(lambda: bool(get(url, "/ready")[1]["degraded"]))
    status, ready = get(url, "/ready")
    assert (status, ready["ready"]) == (200, True), "speech needs no data directory"
    assert ready["degraded"][0].startswith("jobs, keys and daily limits: /proc/chorus cannot be written: ")
    assert samples(url)["chorus_degraded"] == len(ready["degraded"])


def test_a_busy_worker_and_its_queue(run_dir: Path, processes: ExitStack) -> None:
    processes.enter_context(start_stub(run_dir))
    url = processes.enter_context(start_balancer(run_dir))
    clients = processes.enter_context(ThreadPoolExecutor(3))

    def request_in_background(**fields: object) -> None:
        """A request whose client waits for the response while the test goes on."""
        body = {"text": "slow"} | fields
        clients.submit(httpx.post, f"{url}/tts", json=body, timeout=TIMEOUT, trust_env=False)

    request_in_background()
    wait_until(lambda: get(url, "/health")[1]["workers"][0]["phase"] == "busy")
    request_in_background()
    request_in_background(priority="batch")
    wait_until(lambda: get(url, "/health")[1]["queueDepth"] == 2)
    report = get(url, "/health")[1]
    assert report["queueDepths"] == {"interactive": 1, "batch": 1}
    assert (report["slots"], report["freeSlots"]) == (1, 0)
    [running] = report["workers"][0]["running"]
    assert (running["voice"], running["characters"], running["priority"]) == ("default", 4, "interactive")
    assert running["seconds"] > 0
    assert running["expected_seconds"] > 0
    found = samples(url)
    assert found["chorus_queue_depth batch"] == 1
    assert found["chorus_workers busy"] == 1
    (run_dir / "go").touch()
    wait_until(lambda: get(url, "/health")[1]["freeSlots"] == 1)
    assert get(url, "/health")[1]["workers"][0]["running"] == []
    assert samples(url)["chorus_queue_wait_seconds_count hibari ok"] == 3


def test_the_json_summary(run_dir: Path, processes: ExitStack) -> None:
    processes.enter_context(start_stub(run_dir))
    url = processes.enter_context(start_balancer(run_dir))
    httpx.post(f"{url}/tts", json={"text": "Hello."}, timeout=TIMEOUT, trust_env=False).raise_for_status()
    response = httpx.get(f"{url}/metrics", headers={"Accept": "application/json"}, timeout=TIMEOUT, trust_env=False)
    summary = response.json()
    assert summary.keys() == {"queue_size", "avg_wait_time", "requests_per_minute"}
    assert (summary["queue_size"], summary["requests_per_minute"]) == (0, 1)
    assert 0 <= summary["avg_wait_time"] < 1


def test_loop_lag_and_request_times_are_measured(run_dir: Path, processes: ExitStack) -> None:
    processes.enter_context(start_stub(run_dir))
    url = processes.enter_context(start_balancer(run_dir))
    for _ in range(3):
        httpx.post(f"{url}/tts", json={"text": "Hello."}, timeout=TIMEOUT, trust_env=False).raise_for_status()
    wait_until(lambda: samples(url)["chorus_loop_lag_seconds_count hibari"] > 3)
    found = samples(url)
    assert found["chorus_request_seconds_count /tts hibari ok"] == 3
    assert found["chorus_first_byte_seconds_count /tts hibari"] == 3
    assert found["chorus_synthesis_seconds_count hibari ok"] == 3
    assert found["process_open_fds"] > 5
