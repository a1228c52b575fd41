"""Program on each host of deploy/aws/chorus.yaml, in the distribution's Python, with its boto3.

It publishes the metrics that the group scales by, once a minute, and when the group is to terminate the host, it drains
the host first. deploy/aws/setup_host uses its other commands.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

log = logging.getLogger("host_agent")

METADATA_SERVICE = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254")
SERVER = "http://127.0.0.1:5000"
API_KEYS = Path("/etc/chorus/credentials/api_keys")
NAMESPACE = "Chorus"

REQUEST_TIMEOUT_SECONDS = 5
POLL_INTERVAL_SECONDS = 5.0
PUBLISH_INTERVAL_SECONDS = 60.0
DRAIN_SECONDS = 330
"""Maximum time for requests in flight: above CHORUS_REQUEST_TIMEOUT; below the heartbeat of the hook `terminate`, with
what the server then takes to stop."""


class InstanceMetadata:
    """Client of the instance metadata service, version 2."""

    def __init__(self, endpoint: str = METADATA_SERVICE) -> None:
        self._endpoint = endpoint.rstrip("/")

    def get(self, path: str) -> str:
        """Returns a value of `latest/meta-data/`. Raises OSError."""
        token = _fetch(
            f"{self._endpoint}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, method="PUT"
        )
        return _fetch(f"{self._endpoint}/latest/meta-data/{path}", {"X-aws-ec2-metadata-token": token})

    def networks(self) -> list[str]:
        """Returns the IPv4 networks of the VPC."""
        interface = self.get("network/interfaces/macs/").split()[0]
        return self.get(f"network/interfaces/macs/{interface}vpc-ipv4-cidr-blocks").split()


@dataclass(frozen=True)
class Load:
    """How busy the server on this host is."""

    queue_wait: float
    """Mean seconds that utterances waited in the queue, of those that left it in the last minute."""
    slots_in_use: float
    """Percentage of the slots that have an utterance."""

    @classmethod
    def measure(cls, server: str, key: str) -> Load:
        """Asks the server. Raises OSError while none answers, or none that can speak."""
        headers = {"Authorization": f"Bearer {key}", "Accept": "application/json"}
        metrics = json.loads(_fetch(f"{server}/metrics", headers))
        health = json.loads(_fetch(f"{server}/health", headers))
        slots = health["slots"]
        return cls(metrics["avg_wait_time"], 100 * (slots - health["freeSlots"]) / max(slots, 1))


class GroupMember:
    """The host as a member of an auto-scaling group."""

    def __init__(self, group: str, metadata: InstanceMetadata) -> None:
        self._group = group
        self._metadata = metadata
        self._instance = metadata.get("instance-id")
        region = metadata.get("placement/region")
        self._cloudwatch: Any = boto3.client("cloudwatch", region_name=region)
        self._autoscaling: Any = boto3.client("autoscaling", region_name=region)

    def publish(self, load: Load) -> None:
        """Publish this host's load, of which the group's policies take the mean over all hosts."""
        dimensions = [{"Name": "AutoScalingGroupName", "Value": self._group}]
        figures = (("QueueWait", load.queue_wait, "Seconds"), ("SlotsInUse", load.slots_in_use, "Percent"))
        self._cloudwatch.put_metric_data(
            Namespace=NAMESPACE,
            MetricData=[
                {"MetricName": name, "Dimensions": dimensions, "Value": value, "Unit": unit}
                for name, value, unit in figures
            ],
        )

    def ends(self) -> bool:
        """Whether the group is about to terminate this host."""
        return self._metadata.get("autoscaling/target-lifecycle-state") == "Terminated"

    def complete(self, hook: str) -> None:
        """Tell the group that it may go on with what waits for a lifecycle hook."""
        self._autoscaling.complete_lifecycle_action(
            AutoScalingGroupName=self._group,
            LifecycleHookName=hook,
            InstanceId=self._instance,
            LifecycleActionResult="CONTINUE",
        )


def watch(member: GroupMember) -> None:
    """Publish metrics until the group terminates this host; then drain it and stop the server."""
    published = float("-inf")
    while True:
        try:
            if member.ends():
                break
            if time.monotonic() - published >= PUBLISH_INTERVAL_SECONDS:
                published = time.monotonic()
                member.publish(Load.measure(SERVER, API_KEYS.read_text().replace(",", " ").split()[0]))
        except (OSError, BotoCoreError, ClientError) as error:
            log.warning("%s", error)
        time.sleep(POLL_INTERVAL_SECONDS)
    log.info("this host is to be terminated: draining it")
    # A host goes on with jobs while it is drained; those that still run go to other hosts when the server stops.
    subprocess.run(["chorus", "drain", "--wait", str(DRAIN_SECONDS)], check=False)
    subprocess.run(["systemctl", "stop", "chorus"], check=False)
    member.complete("terminate")


def _fetch(url: str, headers: dict[str, str], method: str = "GET") -> str:
    """Returns the body of an answer. Raises OSError, also for a status that is an error."""
    request = urllib.request.Request(url, headers=headers, method=method)  # noqa: S310  the URLs are http
    with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_SECONDS) as response:  # noqa: S310
        body: bytes = response.read()
    return body.decode()


def main() -> None:
    """Run one command."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("networks", help="print the networks of the VPC, separated by commas")
    commands.add_parser("secret", help="print a secret").add_argument("secret", metavar="ARN")
    commands.add_parser("launched", help="tell the group that this host speaks").add_argument("group")
    commands.add_parser("watch", help="publish metrics, and drain this host before its end").add_argument("group")
    arguments = parser.parse_args()
    metadata = InstanceMetadata()
    match arguments.command:
        case "networks":
            print(",".join(metadata.networks()))
        case "secret":
            client: Any = boto3.client("secretsmanager", region_name=metadata.get("placement/region"))
            print(client.get_secret_value(SecretId=arguments.secret)["SecretString"])
        case "launched":
            GroupMember(arguments.group, metadata).complete("launch")
        case "watch":
            watch(GroupMember(arguments.group, metadata))


if __name__ == "__main__":
    main()
