"""A Redis with a replica behind a real Sentinel, one with TLS, and one that is a cluster."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from balancer.host.processes import free_port
from balancer.launch.preflight import LaunchError, check
from balancer.redis_client import RedisClient
from balancer.settings import Settings
from scripts.support.sentinels import start_sentinels
from tests.support.harness import serve_stub, wait_until
from tests.support.redis_server import RedisServer

JOBS = 60
KILLED_AFTER = 20


def test_no_accepted_job_is_lost_when_a_replica_takes_the_place_of_the_primary(tmp_path: Path) -> None:
    accepted: dict[str, str] = {}

    with start_sentinels(tmp_path) as redis, serve_stub(redis_url=redis.url, cache_mib=0) as server:

        def submit(number: int) -> bool:
            """Send a job as a client that tries again does: with the same idempotency key."""
            headers = {"Idempotency-Key": f"job {number}"}
            answer = server.client.post("/queue", json={"text": f"Job number {number}."}, headers=headers)
            if answer.status_code == 202:
                accepted.setdefault(f"job {number}", answer.json()["requestId"])
            return answer.status_code == 202

        for number in range(JOBS):
            if number == KILLED_AFTER:
                redis.kill_primary()
            wait_until(lambda: submit(number))  # noqa: B023
        wait_until(lambda: all(status(server.client, job) == "done" for job in accepted.values()))
        assert len(set(accepted.values())) == JOBS
        assert redis.failed_over
        # Each was done once, as far as the client sees.
        assert all(server.client.get(f"/audio/{job}").status_code == 200 for job in accepted.values())


def status(client: httpx.Client, job: str) -> str:
    answer = client.get(f"/status/{job}")
    return str(answer.json()["state"]) if answer.status_code == 200 else "unknown"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A folder with a key and a certificate for 127.0.0.1 that signs itself."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=redis", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )  # fmt: skip
    return tmp_path


@pytest.fixture
def encrypted(certificate: Path) -> Iterator[str]:
    """The URL of a Redis that speaks TLS at a port of its own."""
    port = free_port()
    files = {"tls_cert_file": certificate / "cert.pem", "tls_key_file": certificate / "key.pem"}
    own = {"tls_ca_cert_file": certificate / "cert.pem", "tls_auth_clients": "no"}
    server = RedisServer(certificate, tls_port=port, **files, **own)
    server.start()
    yield f"rediss://127.0.0.1:{port}/0"
    server.kill()


async def test_connections_are_encrypted_and_the_certificate_is_checked(encrypted: str, certificate: Path) -> None:
    trusting = RedisClient(f"{encrypted}?ssl_ca_certs={certificate / 'cert.pem'}")
    assert await trusting.raw.ping()
    await trusting.aclose()
    doubting = RedisClient(encrypted)
    with pytest.raises(Exception, match="certificate verify failed"):
        await doubting.raw.ping()
    await doubting.aclose()


def test_a_cluster_is_refused_at_the_start(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, cluster_enabled="yes", cluster_port=free_port())
    server.start()
    try:
        with pytest.raises(LaunchError, match="Cluster"):
            check(Settings.load({}, redis_url=server.url, run_dir=tmp_path / "run"))
    finally:
        server.kill()
