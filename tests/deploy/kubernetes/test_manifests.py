"""The manifests: valid for the Kubernetes API, of one piece, and with settings, paths and ports that the server has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from balancer.settings.settings import SECRET, Settings

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "kubernetes"
KUBERNETES = "1.31"
"""The oldest version that the manifests are checked with; what they use has been stable since 1.25."""


def manifests(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """The manifests that a kustomization names, by kind."""
    found = [yaml.safe_load((folder / name).read_text()) for name in kustomization(folder)["resources"]]
    return {manifest["kind"]: manifest for manifest in found}


def kustomization(folder: Path = FOLDER) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((folder / "kustomization.yaml").read_text())
    return loaded


def settings_environment() -> dict[str, str]:
    lines = (FOLDER / "settings.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.fixture(scope="module")
def settings() -> Settings:
    return Settings.load(settings_environment())


@pytest.fixture(scope="module")
def pod() -> dict[str, Any]:
    spec: dict[str, Any] = manifests()["Deployment"]["spec"]["template"]["spec"]
    return spec


@pytest.fixture(scope="module")
def server(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod["containers"]
    return dict(container)


@pytest.mark.parametrize("kind", sorted(manifests()))
def test_the_api_accepts_it(kind: str) -> None:
    kubernetes_validate.validate(manifests()[kind], KUBERNETES, strict=True)


def test_every_file_belongs_to_a_kustomization() -> None:
    named = {FOLDER / name for name in kustomization()["resources"]}
    named |= {FOLDER / "monitoring" / name for name in kustomization(FOLDER / "monitoring")["resources"]}
    not_manifests = {"kustomization.yaml", "adapter-rules.yaml"}
    assert named == {file for file in FOLDER.rglob("*.yaml") if file.name not in not_manifests}


def test_every_selector_selects_the_pods() -> None:
    found = manifests()
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    monitor = manifests(FOLDER / "monitoring")["PodMonitor"]
    selectors = [
        found["Deployment"]["spec"]["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        monitor["spec"]["selector"]["matchLabels"],
    ]
    assert selectors == [labels] * 4
    target = found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", found["Deployment"]["metadata"]["name"])


def test_paths_and_ports_are_those_of_the_server(
    settings: Settings, pod: dict[str, Any], server: dict[str, Any]
) -> None:
    assert server["ports"] == [{"name": "http", "containerPort": settings.server.port}]
    assert manifests()["Service"]["spec"]["ports"][0]["targetPort"] == "http"
    probes = {name: server[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {probe["port"] for probe in probes.values()} == {"http"}
    assert [probe["path"] for probe in probes.values()] == ["/ready", "/ready", "/livez"]
    mounted = {Path(mount["mountPath"]) for mount in server["volumeMounts"]}
    storage = settings.storage
    assert {storage.data_dir, storage.cache_dir, storage.voices_dir, settings.server.socket_dir.parent} <= mounted
    assert {mount["name"] for mount in server["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    (tmp,) = (volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"] if volume["name"] == "tmp")
    assert int(tmp.removesuffix("Gi")) * 1024 > settings.memory.spool_mib


def test_secrets_are_credentials_that_are_named_after_settings(server: dict[str, Any]) -> None:
    comment = (FOLDER / "deployment.yaml").read_text().split("apiVersion")[0]
    named = set(re.findall(r"chorus_[a-z_]+", comment))
    assert named
    assert {name.removeprefix("chorus_") for name in named} <= SECRET
    environment = {entry["name"]: entry["value"] for entry in server["env"]}
    folder = environment["CREDENTIALS_DIRECTORY"]
    assert {mount["mountPath"] for mount in server["volumeMounts"] if mount["name"] == "credentials"} == {folder}


def test_a_pod_has_time_to_be_drained(settings: Settings, pod: dict[str, Any], server: dict[str, Any]) -> None:
    command = server["lifecycle"]["preStop"]["exec"]["command"]
    assert command[:3] == ["chorus", "drain", "--wait"]
    drain = float(command[3])
    # The balancer, then the workers.
    stop = settings.server.stop_delay_seconds + 2 * settings.server.stop_seconds
    assert settings.limits.request_timeout < drain
    assert drain + stop < pod["terminationGracePeriodSeconds"]


def test_a_pod_has_whole_cpus_of_its_own_and_no_privileges(pod: dict[str, Any]) -> None:
    for container in [*pod["initContainers"], *pod["containers"]]:
        resources = container["resources"]
        # The class Guaranteed, which the static CPU manager policy asks for.
        assert resources["requests"] == resources["limits"]
        assert resources["limits"]["cpu"].isdigit()
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"]
        assert not security["allowPrivilegeEscalation"]
        assert security["capabilities"] == {"drop": ["ALL"]}
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


def test_the_autoscaler_follows_metrics_that_the_server_has() -> None:
    rules = yaml.safe_load((FOLDER / "monitoring" / "adapter-rules.yaml").read_text())["rules"]["custom"]
    autoscaler = manifests()["HorizontalPodAutoscaler"]
    followed = [metric["pods"]["metric"]["name"] for metric in autoscaler["spec"]["metrics"]]
    assert [rule["name"]["as"] for rule in rules] == followed
    queries = " ".join(f"{rule['seriesQuery']} {rule['metricsQuery']}" for rule in rules)
    series = {re.sub("_(sum|count)$", "", name) for name in re.findall(r"chorus_\w+", queries)}
    documented = set(re.findall(r"`(chorus_\w+)`", (ROOT / "docs" / "metrics.md").read_text()))
    assert series == {"chorus_queue_wait_seconds", "chorus_slots", "chorus_slots_free"}
    assert series <= documented
