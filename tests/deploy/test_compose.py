"""deploy/compose.yaml: of one piece, with settings that the server has. `scripts/try_container` runs it."""

from __future__ import annotations

import os
import re
import subprocess
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from balancer.settings.settings import SECRET, Settings
from tests.support.proxies import program

ROOT = Path(__file__).parents[2]
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


def composed(**variables: str) -> dict[str, Any]:
    """The file as compose reads it, with these variables and the defaults of the others."""
    text = (ROOT / "deploy" / "compose.yaml").read_text()
    loaded: dict[str, Any] = yaml.safe_load(VARIABLE.sub(lambda found: variables.get(found[1], found[2]), text))
    return loaded


def addresses(file: dict[str, Any], field: str = "ipv4_address") -> dict[str, str]:
    return {name: service["networks"]["default"][field] for name, service in file["services"].items()}


@pytest.fixture
def settings() -> Settings:
    environment = composed()["services"]["chorus"]["environment"]
    assert all(isinstance(value, str) for value in environment.values())
    image = re.findall(r"(CHORUS_\w+)=(\S+)", (ROOT / "deploy" / "Containerfile").read_text())
    return Settings.load(dict(image) | environment | {"CHORUS_API_KEYS": "a-key-of-the-tests-only"})


@pytest.mark.parametrize("variables", [{}, {"CHORUS_NETWORK": "192.0.2"}])
def test_every_container_keeps_its_addresses_in_the_network(variables: dict[str, str]) -> None:
    file = composed(**variables)
    (network,) = file["networks"]["default"]["ipam"]["config"]
    of_services = [ip_address(address) for address in addresses(file).values()]
    assert len(set(of_services)) == len(file["services"])
    assert all(address in ip_network(network["subnet"]) for address in of_services)
    hardware = list(addresses(file, "mac_address").values())
    assert len(set(hardware)) == len(hardware)
    # The second bit of the first byte: assigned locally.
    assert all(int(address.split(":")[0], 16) & 0b11 == 0b10 for address in hardware)


def test_no_container_lives_in_another_one() -> None:
    assert not any("network_mode" in service for service in composed()["services"].values())


def test_haproxy_alone_is_published_and_believed(settings: Settings) -> None:
    file = composed()
    assert [name for name, service in file["services"].items() if "ports" in service] == ["haproxy"]
    assert settings.server.trusted_proxies == addresses(file)["haproxy"]
    assert file["services"]["haproxy"]["environment"]["HOST1"] == addresses(file)["chorus"]


def test_haproxy_asks_where_the_server_answers(settings: Settings) -> None:
    configuration = (ROOT / "deploy" / "haproxy.cfg").read_text()
    assert f"agent-port {settings.server.agent_port}" in configuration
    assert f'server host1 "${{HOST1-127.0.0.1}}:{settings.server.port}"' in configuration
    (port,) = composed()["services"]["haproxy"]["ports"]
    assert f"bind :{port.split(':')[-1]}" in configuration
    assert settings.server.host == "0.0.0.0"


@pytest.mark.parametrize(
    ("variables", "accepted"), [({}, True), ({"HOST1": "192.0.2.1"}, True), ({"HOST1": "no address"}, False)]
)
def test_haproxy_takes_its_host_from_the_environment(variables: dict[str, str], *, accepted: bool) -> None:
    command = [program("haproxy"), "-c", "-f", str(ROOT / "deploy" / "haproxy.cfg")]
    others = {name: value for name, value in os.environ.items() if name != "HOST1"}
    done = subprocess.run(command, env=others | variables, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is accepted, done.stderr


def test_the_health_check_is_that_of_the_image() -> None:
    check = composed()["services"]["chorus"]["healthcheck"]
    (image,) = re.findall(r"^HEALTHCHECK (.*)$", (ROOT / "deploy" / "Containerfile").read_text(), re.MULTILINE)
    options = " ".join(f"--{name.replace('_', '-')}={check[name]}" for name in ("interval", "timeout", "start_period"))
    (command,) = check["test"][1:]
    assert image == f'{options} CMD ["{command}"]'


def test_containers_have_time_to_finish_what_is_in_flight(settings: Settings) -> None:
    # The balancer, then the workers.
    stop = settings.server.stop_delay_seconds + 2 * settings.server.stop_seconds
    services = composed()["services"]
    for name in ("chorus", "haproxy"):
        assert float(services[name]["stop_grace_period"].removesuffix("s")) > stop
    # With this one HAProxy ends after the last answer; with SIGTERM at once.
    assert services["haproxy"]["stop_signal"] == "SIGUSR1"


def test_secrets_are_credentials_that_are_named_after_settings() -> None:
    file = composed()
    for secret in file["services"]["chorus"]["secrets"]:
        assert secret["target"].removeprefix("chorus_") in SECRET
        assert secret["source"] in file["secrets"]


def test_a_key_that_compose_reads_is_not_committed() -> None:
    source = composed()["secrets"]["api_keys"]["file"]
    path = os.path.relpath(ROOT / "deploy" / source, ROOT)
    assert f"/{path}" in (ROOT / ".gitignore").read_text().splitlines()
