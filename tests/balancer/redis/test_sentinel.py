"""A Redis with a replica behind a real Sentinel, one with TLS, and one that is a cluster."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import pytest

from balancer.host.processes import await_ready, free_port, running
from balancer.launch.preflight import LaunchError, check
from balancer.redis.client import RedisClient
from balancer.settings.settings import Settings
from scripts.support.redis_server import RedisServer
from scripts.support.sentinels import start_sentinels
from tests.support.harness import TIMEOUT, serve_stub, wait_until

JOBS = 60
KILLED_AFTER = 20
SENTINEL_PASSWORD = "p&ss word"


def test_no_accepted_job_is_lost_when_a_replica_takes_the_place_of_the_primary(tmp_path: Path) -> None:
    accepted: dict[str, str] = {}

    with start_sentinels(tmp_path, SENTINEL_PASSWORD) as redis, serve_stub(redis_url=redis.url, cache_mib=0) as server:

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
    server = RedisServer(certificate, durable=True, tls_port=port, **files, **own)
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


@pytest.fixture
def encrypted_sentinel(encrypted: str, certificate: Path) -> Iterator[int]:
    """The port of a Sentinel that speaks TLS, requires a password, and knows the encrypted Redis as `chorus`."""
    port, folder = free_port(), certificate / "sentinel"
    folder.mkdir()
    lines = ["port 0", f"tls-port {port}", "bind 127.0.0.1", f"dir {folder}", "tls-auth-clients no"]
    lines += ["tls-replication yes", f'requirepass "{SENTINEL_PASSWORD}"']
    lines += [f"tls-cert-file {certificate / 'cert.pem'}", f"tls-key-file {certificate / 'key.pem'}"]
    lines += [f"tls-ca-cert-file {certificate / 'cert.pem'}"]
    lines += [f"sentinel monitor chorus 127.0.0.1 {urlsplit(encrypted).port} 1"]
    (folder / "sentinel.conf").write_text("\n".join(lines) + "\n")
    command = ["redis-server", str(folder / "sentinel.conf"), "--sentinel"]
    with running(command, log=folder / "sentinel.log") as process:
        await_ready(process, lambda: b"+monitor" in (folder / "sentinel.log").read_bytes(), timeout=TIMEOUT)
        yield port


async def test_a_sentinel_has_a_password_of_its_own_and_tls_as_its_primary(
    encrypted_sentinel: int, certificate: Path
) -> None:
    options = f"ssl_ca_certs={certificate / 'cert.pem'}&sentinel_password={quote(SENTINEL_PASSWORD)}"
    client = RedisClient(f"rediss+sentinel://127.0.0.1:{encrypted_sentinel}/chorus/0?{options}")
    assert await client.raw.ping()
    await client.aclose()


def test_a_cluster_is_refused_at_the_start(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, durable=True, cluster_enabled="yes", cluster_port=free_port())
    server.start()
    try:
        with pytest.raises(LaunchError, match="Cluster"):
            check(Settings.load({}, redis_url=server.url, run_dir=tmp_path / "run"))
    finally:
        server.kill()
