"""HAProxy, as `deploy/` configures it, with the weight that a host tells it: less for what no request waits for."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import httpx

from balancer.host.processes import free_port
from tests.support.harness import TIMEOUT, serve_stub, wait_until
from tests.support.proxies import start_haproxy


def test_a_busy_host_has_less_weight_but_some_and_a_draining_one_gets_nothing(tmp_path: Path) -> None:
    port = free_port()
    with (
        serve_stub(agent_port=port, normalize=False, cache_mib=0) as server,
        start_haproxy(tmp_path, server.url, agent_port=port) as url,
        httpx.Client(base_url=url, timeout=TIMEOUT, trust_env=False) as client,
    ):

        def host(field: str) -> str:
            table = client.get("/stats;csv").text.removeprefix("# ")
            return next(row[field] for row in csv.DictReader(io.StringIO(table)) if row["svname"] == "host1")

        wait_until(lambda: host("status") == "UP" and host("weight") == "32")
        job = client.post("/queue", json={"text": "slow"}).json()["requestId"]
        wait_until(lambda: 1 <= int(host("weight")) <= 16)
        (server.log.parent / "go").touch()
        wait_until(lambda: client.get(f"/status/{job}").json()["state"] == "done")
        wait_until(lambda: int(host("weight")) >= 32)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.log.parent / "control.sock"))) as control:
            control.post("http://control/drain").raise_for_status()
        wait_until(lambda: client.post("/tts", json={"text": "Nobody says this."}).status_code == 503)
        assert server.client.post("/tts", json={"text": "But the host itself still does."}).status_code == 200
