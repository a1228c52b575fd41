"""The template: checked by cfn-lint, created in moto, and compared with the host agent and the settings."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from balancer.settings.settings import Settings
from deploy.aws import host_agent
from tests.support import cloudformation

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "aws"
TEMPLATE = FOLDER / "chorus.yaml"
SETUP = FOLDER / "setup_host"

NOT_IN_MOTO = {
    "AWS::AutoScaling::ScalingPolicy",
    "AWS::ElastiCache::ParameterGroup",
    "AWS::ElastiCache::ReplicationGroup",
    "AWS::ElastiCache::SubnetGroup",
    "AWS::SecretsManager::Secret",
}
"""Types that moto's CloudFormation cannot create, which the test leaves out."""

IMAGE = "ami-12c6146b"
"""One that moto has."""

KEYS = "arn:aws:secretsmanager:us-east-1:123456789012:secret:keys-a1b2c3"


@dataclass(frozen=True)
class Stack:
    """What moto has made of the template."""

    states: dict[str, str]
    """The status of each resource."""
    outputs: dict[str, str]
    groups: list[dict[str, Any]]
    user_data: str
    certificate: str


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    """The template as CloudFormation reads it."""
    return cloudformation.load(TEMPLATE)


@pytest.fixture(scope="module", params=["trial", "production"])
def stack(request: pytest.FixtureRequest, template: dict[str, Any]) -> Iterator[Stack]:
    """The stack with the defaults, and with everything that they leave out."""
    with pytest.MonkeyPatch.context() as monkeypatch, warnings.catch_warnings():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        # Those of botocore's and moto's own code on newer versions of Python.
        warnings.simplefilter("ignore", DeprecationWarning)
        with mock_aws():
            yield created(template, production=request.param == "production")


def without(node: Any, names: set[str]) -> Any:
    """A part of a template, with a word in place of each reference to one of these resources."""
    match node:
        case {"Ref": str(name)} if name in names:
            return name
        case {"Fn::GetAtt": [str(name), *_]} if name in names:
            return name
        case dict():
            return {key: without(value, names) for key, value in node.items()}
        case list():
            return [without(value, names) for value in node]
        case str():
            return re.sub(rf"\$\{{({'|'.join(names)})[.\w]*\}}", r"\1", node)
        case _:
            return node


def created(template: dict[str, Any], *, production: bool) -> Stack:
    """Creates the stack `speech` in moto."""
    ec2 = boto3.client("ec2")
    subnets = ",".join(subnet["SubnetId"] for subnet in ec2.describe_subnets()["Subnets"][:2])
    parameters = {
        "Repository": "https://git.example.org/chorus.git",
        "Revision": "v1",
        "VpcId": ec2.describe_vpcs()["Vpcs"][0]["VpcId"],
        "LoadBalancerSubnets": subnets,
        "HostSubnets": subnets,
    }
    certificate = ""
    if production:
        certificate = boto3.client("acm").request_certificate(DomainName="speech.example.org")["CertificateArn"]
        settings = "CHORUS_LOG_TEXT=true CHORUS_CACHE_DAYS=2"
        parameters |= {"Certificate": certificate, "ApiKeysSecret": KEYS, "Settings": settings}
    boto3.client("ssm").put_parameter(Name="/image", Value=IMAGE, Type="String")
    left_out = {name for name, resource in template["Resources"].items() if resource["Type"] in NOT_IN_MOTO}
    body = without(template, left_out)
    body["Resources"] = {name: part for name, part in body["Resources"].items() if name not in left_out}
    body["Parameters"]["Image"]["Default"] = "/image"
    cloudformation = boto3.client("cloudformation")
    cloudformation.create_stack(
        StackName="speech",
        TemplateBody=json.dumps(body),
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    resources = cloudformation.list_stack_resources(StackName="speech")["StackResourceSummaries"]
    outputs = cloudformation.describe_stacks(StackName="speech")["Stacks"][0]["Outputs"]
    (launch,) = ec2.describe_launch_template_versions(Versions=["$Latest"])["LaunchTemplateVersions"]
    return Stack(
        states={part["LogicalResourceId"]: part["ResourceStatus"] for part in resources if part["LogicalResourceId"]},
        outputs={output["OutputKey"]: output["OutputValue"] for output in outputs},
        groups=boto3.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"],
        user_data=base64.b64decode(launch["LaunchTemplateData"]["UserData"]).decode(),
        certificate=certificate,
    )


def settings_written(setup: str) -> dict[str, str]:
    """The settings that setup_host writes, with an example of what it learns from AWS."""
    return dict(re.findall(r"^ +\"?(CHORUS_\w+)=([^\s\"]+)", setup.replace("$proxies", "10.0.0.0/16"), re.MULTILINE))


def test_cfn_lint_finds_nothing() -> None:
    found = cloudformation.lint(TEMPLATE)
    # Of 2026, and known to cfn-lint from 1.58 on, which needs a newer sympy than torch.
    assert [message for message in found if "'AutoScalingInstanceRefresh' was unexpected" not in message] == []


def test_the_stack_comes_up(template: dict[str, Any], stack: Stack) -> None:
    listeners = {"HttpsListener", "RedirectListener"} if stack.certificate else {"HttpListener"}
    expected = {
        name
        for name, resource in template["Resources"].items()
        if resource["Type"] not in NOT_IN_MOTO and ("Listener" not in name or name in listeners)
    }
    assert stack.states == dict.fromkeys(expected, "CREATE_COMPLETE")
    scheme = "https" if stack.certificate else "http"
    assert stack.outputs["Url"].startswith(f"{scheme}://speech-LoadBalancer-")
    assert stack.outputs["ApiKeysSecret"] == (KEYS if stack.certificate else "ApiKey")
    (group,) = stack.groups
    assert (group["AutoScalingGroupName"], group["MinSize"], len(group["Instances"])) == ("speech", 2, 2)


def test_its_user_data_gives_what_setup_host_needs(stack: Stack) -> None:
    subprocess.run(["bash", "-n"], input=stack.user_data, text=True, check=True)
    subprocess.run(["bash", "-n", SETUP], check=True)
    given = set(re.findall(r"([A-Z_]+)='", stack.user_data))
    needed = set(re.findall(r"\$\{?([A-Z]{2}[A-Z_]+)", SETUP.read_text())) - {"BASH_SOURCE"}
    assert given == needed
    assert stack.user_data.endswith("/root/chorus/deploy/aws/setup_host\n")


def test_settings_of_a_host_are_accepted_and_fit_the_load_balancer(template: dict[str, Any]) -> None:
    settings = Settings.load(settings_written(SETUP.read_text()) | {"CHORUS_API_KEYS": "0123456789abcdef"})
    resources = template["Resources"]
    balancer = attributes(resources["LoadBalancer"]["Properties"]["LoadBalancerAttributes"])
    hosts = resources["Hosts"]["Properties"]
    idle = float(balancer["idle_timeout.timeout_seconds"])
    unhealthy = hosts["HealthCheckIntervalSeconds"] * (hosts["UnhealthyThresholdCount"] + 1)
    assert settings.limits.request_timeout < idle < settings.http.keep_alive_seconds
    assert settings.limits.request_timeout <= float(
        attributes(hosts["TargetGroupAttributes"])["deregistration_delay.timeout_seconds"]
    )
    assert settings.server.stop_delay_seconds >= unhealthy
    assert (settings.server.port, settings.server.host) == (hosts["Port"], "0.0.0.0")
    assert host_agent.SERVER.endswith(f":{settings.server.port}")


def test_a_host_has_time_to_be_drained(template: dict[str, Any]) -> None:
    hooks = template["Resources"]["Group"]["Properties"]["LifecycleHookSpecificationList"]
    seconds = {hook["LifecycleHookName"]: hook["HeartbeatTimeout"] for hook in hooks}
    server = Settings.load(settings_written(SETUP.read_text())).server
    # The balancer, then the workers.
    stop = server.stop_delay_seconds + 2 * server.stop_seconds
    assert seconds.keys() == {"launch", "terminate"}
    assert host_agent.DRAIN_SECONDS + stop + host_agent.POLL_INTERVAL_SECONDS < seconds["terminate"]
    assert Settings.load({}).limits.request_timeout < host_agent.DRAIN_SECONDS


def test_the_documented_command_gives_the_parameters_that_have_no_default(template: dict[str, Any]) -> None:
    text = (ROOT / "docs" / "deployment.md").read_text()
    command = text[text.index("aws cloudformation deploy") :].partition("\naws ")[0]
    given = set(re.findall(r"\b([A-Z]\w+)=", command))
    without_default = {name for name, parameter in template["Parameters"].items() if "Default" not in parameter}
    assert without_default <= given <= template["Parameters"].keys()


def test_only_the_load_balancer_reaches_the_hosts_and_only_they_redis(template: dict[str, Any]) -> None:
    sources = {
        name: [
            rule.get("SourceSecurityGroupId", {}).get("Fn::GetAtt", [None])[0]
            for rule in template["Resources"][name]["Properties"]["SecurityGroupIngress"]
        ]
        for name in ("HostSecurityGroup", "RedisSecurityGroup")
    }
    assert sources == {"HostSecurityGroup": ["LoadBalancerSecurityGroup"], "RedisSecurityGroup": ["HostSecurityGroup"]}


def attributes(pairs: list[dict[str, str]]) -> dict[str, str]:
    return {pair["Key"]: pair["Value"] for pair in pairs}
