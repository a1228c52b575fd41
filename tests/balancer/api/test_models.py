"""The response models against the real responses of a balancer: neither has a field that the other lacks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from balancer.api.models.catalogue import Model, ModelList
from balancer.api.models.error import Error
from balancer.api.models.health import (
    ControlState,
    Health,
    MetricsSummary,
    Readiness,
    WorkerProcessReport,
    WorkerReport,
)
from balancer.api.models.jobs import JobReceipt, JobReceipts, JobStatus
from balancer.api.models.speech import TtsJson
from balancer.api.models.voices import VoiceList
from balancer.api.responses import json_object
from tests.support.harness import TIMEOUT, Server, serve_stub, wait_until
from worker.contract import WorkerState

NDJSON = {"Content-Type": "application/x-ndjson"}
JSON = {"Accept": "application/json"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve_stub() as running:
        yield running


def check(model: type[BaseModel], wire: dict[str, Any]) -> None:
    parsed = model.model_validate(wire, extra="forbid")
    assert list(json_object(parsed).items()) == list(wire.items())


@pytest.mark.parametrize(
    ("path", "model", "headers"),
    [
        ("/v1/models", ModelList, {}),
        ("/v1/models/tts-1", Model, {}),
        ("/v1/models/gpt-4o-mini-tts-2025-12-15", Model, {}),
        ("/v1/audio/voices", VoiceList, {}),
        ("/health", Health, {}),
        ("/ready", Readiness, {}),
        ("/metrics", MetricsSummary, JSON),
    ],
)
def test_responses_of_get_requests(server: Server, path: str, model: type[BaseModel], headers: dict[str, str]) -> None:
    response = server.client.get(path, headers=headers)
    assert response.status_code == 200
    check(model, response.json())


def test_the_response_of_tts_json(server: Server) -> None:
    check(TtsJson, server.client.post("/tts-json", json={"text": "Hello."}).json())


def test_responses_of_jobs(server: Server) -> None:
    receipt = server.client.post("/queue", json={"text": "Hello.", "userId": "u"}).json()
    check(JobReceipt, receipt)
    lines = "\n".join(json.dumps({"text": text}) for text in ("One.", "Two.", "unspeakable"))
    batch = server.client.post("/queue/batch", content=lines, headers=NDJSON).json()
    check(JobReceipts, batch)
    for job in [receipt, *batch["jobs"]]:
        check(JobStatus, server.client.get(job["statusUrl"]).json())
        wait_until(lambda: server.client.get(job["statusUrl"]).json()["state"] in ("done", "failed"))  # noqa: B023
        check(JobStatus, server.client.get(job["statusUrl"]).json())


def test_the_response_of_a_cancellation(server: Server) -> None:
    job = server.client.post("/queue", json={"text": "hang"}).json()
    check(JobStatus, server.client.delete(f"/queue/{job['requestId']}").json())


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nothing"), ("PUT", "/tts"), ("GET", "/status/x"), ("POST", "/tts")]
)
def test_error_responses(server: Server, method: str, path: str) -> None:
    response = server.client.request(method, path)
    assert response.status_code >= 400
    check(Error, response.json())


def test_health_without_a_worker_process(server: Server) -> None:
    report = {"index": 1, "phase": "gone", "reason": "no process answers"}
    health = server.client.get("/health").json()
    health["workers"].append(report)
    check(Health, health)
    assert type(Health.model_validate(health).workers[0]) is WorkerProcessReport
    assert type(Health.model_validate(health).workers[1]) is WorkerReport


def test_health_reports_the_state_of_a_worker() -> None:
    reported = WorkerProcessReport.model_fields.keys() - {"cpu_cores", "running"}
    assert WorkerState.model_fields.keys() - reported == {"progress", "voices_prepared", "retakes", "flawed"}
    assert reported <= WorkerState.model_fields.keys()


def test_the_response_of_the_control_api(server: Server) -> None:
    transport = httpx.HTTPTransport(uds=str(server.stub.path.parent / "control.sock"))
    with httpx.Client(transport=transport, base_url="http://control", timeout=TIMEOUT) as control:
        for response in (control.get("/state"), control.post("/drain"), control.post("/resume")):
            check(ControlState, response.json())
