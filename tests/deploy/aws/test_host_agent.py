"""The host agent against a metadata service and a server."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.stub import Stubber

from balancer.api.models.health import Health, MetricsSummary
from deploy.aws import host_agent
from tests.support import cloudformation

TEMPLATE = Path(host_agent.__file__).with_name("chorus.yaml")
MAC = "0e:49:61:0f:c3:11"
METADATA = {
    "instance-id": "i-0123456789abcdef0",
    "placement/region": "us-east-1",
    "autoscaling/target-lifecycle-state": "InService",
    "network/interfaces/macs/": f"{MAC}/",
    f"network/interfaces/macs/{MAC}/vpc-ipv4-cidr-blocks": "10.0.0.0/16\n10.1.0.0/16",
}
METRICS = MetricsSummary(queue_size=2, avg_wait_time=0.75, requests_per_minute=40)
SLOTS: dict[str, Any] = {"slots": 8, "free_slots": 2}
HEALTH = Health.model_construct(**SLOTS)
KEY = "0123456789abcdef"


class Answers(BaseHTTPRequestHandler):
    """Answers like the metadata service, version 2, and like a server of which KEY is an API key."""

    def do_PUT(self) -> None:
        self._answer("a token" if self.path == "/latest/api/token" else None)

    def do_GET(self) -> None:
        authorized = self.headers.get("Authorization") == f"Bearer {KEY}"
        if self.path == "/metrics" and authorized and self.headers["Accept"] == "application/json":
            self._answer(METRICS.model_dump_json(by_alias=True))
        elif self.path == "/health" and authorized:
            self._answer(HEALTH.model_dump_json(by_alias=True))
        elif self.headers.get("X-aws-ec2-metadata-token") == "a token":
            self._answer(METADATA.get(self.path.removeprefix("/latest/meta-data/")))
        else:
            self._answer(None)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's own name
        pass

    def _answer(self, body: str | None) -> None:
        self.send_response(200 if body is not None else 404)
        self.end_headers()
        self.wfile.write((body or "").encode())


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The address of the metadata service and the server, with what boto3 needs to find AWS."""
    keys = tmp_path / "api_keys"
    keys.write_text(f"{KEY},another")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(host_agent, "SERVER", address)
        monkeypatch.setattr(host_agent, "API_KEYS", keys)
        monkeypatch.setattr(host_agent, "POLL_INTERVAL_SECONDS", 0.0)
        yield address
        server.shutdown()


@pytest.fixture
def member(url: str) -> host_agent.GroupMember:
    return host_agent.GroupMember("speech", host_agent.InstanceMetadata(url))


@contextmanager
def completing(member: host_agent.GroupMember, hook: str) -> Iterator[None]:
    """Expects the member to complete a hook, once, which moto does not know."""
    with Stubber(member._autoscaling) as stubber:
        stubber.add_response(
            "complete_lifecycle_action",
            {},
            {
                "AutoScalingGroupName": "speech",
                "LifecycleHookName": hook,
                "InstanceId": "i-0123456789abcdef0",
                "LifecycleActionResult": "CONTINUE",
            },
        )
        yield
        stubber.assert_no_pending_responses()


def policies() -> list[dict[str, Any]]:
    """The metrics that the group's policies follow, for the group `speech`."""
    template: dict[str, Any] = json.loads(
        json.dumps(cloudformation.load(TEMPLATE)).replace('{"Ref": "Group"}', '"speech"')
    )
    return [
        resource["Properties"]["TargetTrackingConfiguration"]["CustomizedMetricSpecification"]
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::AutoScaling::ScalingPolicy"
    ]


def test_it_publishes_the_metrics_that_the_policies_follow(member: host_agent.GroupMember) -> None:
    figures = {"QueueWait": 0.75, "SlotsInUse": 75.0}
    followed = policies()
    data = [
        {name: policy[name] for name in ("MetricName", "Dimensions", "Unit")} | {"Value": figures[policy["MetricName"]]}
        for policy in followed
    ]
    assert {policy["Statistic"] for policy in followed} == {"Average"}
    with Stubber(member._cloudwatch) as stubber:
        stubber.add_response("put_metric_data", {}, {"Namespace": followed[0]["Namespace"], "MetricData": data})
        member.publish(host_agent.Load(queue_wait=0.75, slots_in_use=75.0))
        stubber.assert_no_pending_responses()


def test_the_load_is_what_the_server_says(url: str) -> None:
    assert host_agent.Load.measure(url, KEY) == host_agent.Load(queue_wait=0.75, slots_in_use=75.0)


def test_the_networks_are_those_of_the_vpc(url: str) -> None:
    assert host_agent.InstanceMetadata(url).networks() == ["10.0.0.0/16", "10.1.0.0/16"]


def test_a_host_that_the_group_ends_is_drained_stopped_and_given_up(
    member: host_agent.GroupMember, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(METADATA, "autoscaling/target-lifecycle-state", "Terminated")
    done = tmp_path / "done"
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("chorus", "systemctl"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{done}\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    with completing(member, "terminate"):
        host_agent.watch(member)
    assert done.read_text().splitlines() == [f"chorus drain --wait {host_agent.DRAIN_SECONDS}", "systemctl stop chorus"]


def test_a_server_that_does_not_answer_is_tried_again(
    member: host_agent.GroupMember, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(host_agent, "SERVER", "http://127.0.0.1:9")
    monkeypatch.setattr(host_agent, "PUBLISH_INTERVAL_SECONDS", 0.0)
    states = iter([False, False, True])
    monkeypatch.setattr(member, "ends", lambda: next(states))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: None)
    with completing(member, "terminate"):
        host_agent.watch(member)
    assert [record.levelname for record in caplog.records].count("WARNING") == 2
