"""Runs the containers of deploy/compose.yaml as an operator does: up, restarts, a crash, and down.

HAProxy and Redis are Debian's, on the base of the trial; what their usual images say of themselves, these say, too.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from balancer.host.processes import free_port
from balancer.runtime.repository import REPOSITORY
from scripts.deployment.containers import BASE, Compose, Podman
from scripts.deployment.steady_load import KEY, Tally, bearer, in_flight, speak, until
from scripts.deployment.trial import Trial
from scripts.support.console import report_progress

HAPROXY_IMAGE = "localhost/trial-haproxy"
REDIS_IMAGE = "localhost/trial-redis"
INSTALL = "RUN apt-get update && apt-get install --yes --no-install-recommends"
CONTAINERFILES = {
    HAPROXY_IMAGE: f"""\
FROM {BASE}
{INSTALL} haproxy
USER haproxy
CMD ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
""",
    REDIS_IMAGE: f"""\
FROM {BASE}
{INSTALL} redis-server
WORKDIR /data
CMD ["redis-server"]
""",
}
SERVICES = ("chorus", "haproxy", "redis")
REQUESTS_AT_DOWN = 8
READY_SECONDS = 90.0
JOB_SECONDS = 120.0
LOG_LINES = 20
LONG_TEXT = " ".join(
    f"Sentence {number} of a long job is spoken, whatever becomes of the container." for number in range(60)
)


class ComposeTrial(Trial):
    """The steps with the containers, and what was seen at each."""

    def __init__(self, podman: Podman, folder: Path, revision: str) -> None:
        super().__init__()
        self._podman = podman
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        secret = folder / "api_keys"
        secret.write_text(KEY, encoding="ascii")
        secret.chmod(0o444)
        environment = {
            "CHORUS_BASE": BASE,
            "CHORUS_REVISION": revision,
            "CHORUS_PUBLISH": f"127.0.0.1:{port}",
            "CHORUS_API_KEYS_FILE": str(secret),
            "HAPROXY_IMAGE": HAPROXY_IMAGE,
            "REDIS_IMAGE": REDIS_IMAGE,
        }
        self._compose = Compose(podman, folder, REPOSITORY / "deploy" / "compose.yaml", environment)
        self._client = httpx.Client(base_url=self._url, headers=bearer(KEY), timeout=60, trust_env=False)
        self._job = ""

    def run(self) -> None:
        """Every step in turn. Raises CalledProcessError where a step cannot be taken."""
        with self._client:
            steps = (self._images, self._up, self._keys, self._queue, self._crash, self._restart, self._down)
            for step in steps:
                before = len(self.checks)
                try:
                    self._take(step)
                finally:
                    seen = self.checks[before:]
                    if not seen or not all(check.holds for check in seen):
                        self._report_logs()

    def _images(self) -> None:
        """Building images of HAProxy and Redis, and installing podman-compose."""
        begun = time.monotonic()
        for name, text in CONTAINERFILES.items():
            self._podman.build_text(name, text)
        version = self._compose.install()
        self._see("images of HAProxy and Redis, podman-compose", f"{time.monotonic() - begun:.0f} s, {version}", True)

    def _up(self) -> None:
        """Bringing the containers up."""
        begun = time.monotonic()
        self._compose.run("up", "--build", "--detach")
        built = time.monotonic() - begun
        ready = until(self._ready, READY_SECONDS)
        seen = f"{built:.1f} s with the image's layers there; /ready says 200 after {time.monotonic() - begun:.1f} s"
        self._see("podman-compose up --build", seen, ready)
        healthy = self._podman.run("healthcheck", "run", Compose.container("chorus"), check=False).returncode
        self._see("health check", f"exit code {healthy}", healthy == 0)
        degraded = self._client.get("/ready").json()["degraded"]
        self._see("degraded", degraded or "nothing", not degraded)

    def _keys(self) -> None:
        """Speaking with an API key, and without one."""
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as stranger:
            failures = [speak(client, "The first words behind the proxy.") for client in (stranger, self._client)]
        seen = [failure or "spoken" for failure in failures]
        self._see("POST /tts through HAProxy without the secret's key, with it", seen, failures == ["401", None])
        entries = self._log_entries()
        refused = [entry["client"] for entry in entries if entry.get("code") == "invalid_api_key"]
        proxy = self._address("haproxy")
        self._see("the client that the log names", refused, bool(refused) and proxy not in refused)

    def _queue(self) -> None:
        """Queueing a job."""
        self._job = self._queued("A job that lies in Redis.")
        done = until(lambda: self._state(self._job) == "done", JOB_SECONDS)
        known = self._podman.read("exec", Compose.container("redis"), "redis-cli", "exists", f"chorus:job:{self._job}")
        self._see("a job", f"{self._state(self._job)}, {known} of 1 in Redis", done and known == "1")

    def _crash(self) -> None:
        """Killing the container of Chorus while it speaks a long job."""
        process = self._podman.read("inspect", "--format={{.State.Pid}}", Compose.container("chorus"))
        long_job = self._queued(LONG_TEXT)
        until(lambda: self._status(long_job).get("segmentsDone", 0) > 0, JOB_SECONDS)
        with self._returning("speaks again after kill -9 of Chorus' first process"):
            # podman kill would count as the operator's wish, after which nothing is restarted.
            os.kill(int(process), signal.SIGKILL)
        self._see_job("the job of before")
        begun = time.monotonic()
        done = until(lambda: self._state(long_job) == "done", JOB_SECONDS)
        status = self._status(long_job)
        segments = f"{status.get('segmentsDone')} of {status.get('segments')} segments"
        seen = f"{status.get('state')}, {segments}, {time.monotonic() - begun:.1f} s later"
        self._see("the long job that was being spoken", seen, done)

    def _restart(self) -> None:
        """Restarting each container by itself."""
        for service in SERVICES:
            with self._returning(f"speaks again after podman-compose restart {service}"):
                self._compose.run("restart", service)
        self._see_job("the job after these")

    def _down(self) -> None:
        """Taking the containers down with requests in flight."""
        tally = Tally()
        with in_flight(self._url, REQUESTS_AT_DOWN, tally, KEY):
            begun = time.monotonic()
            self._compose.run("down")
            seconds = time.monotonic() - begun
        left = self._podman.read("ps", "--all", "--quiet").split()
        whole = tally.answered == REQUESTS_AT_DOWN and not left
        self._see("podman-compose down", f"{tally.describe()}, {seconds:.1f} s, {len(left)} containers left", whole)

    @contextmanager
    def _returning(self, name: str) -> Iterator[None]:
        """See how long it takes, from the begin of the block, until a text is spoken again."""
        begun = time.monotonic()
        yield
        number = len(self.checks)
        spoken = until(lambda: speak(self._client, f"Words number {number} come after that.") is None, READY_SECONDS)
        self._see(name, f"{time.monotonic() - begun:.1f} s", spoken)

    def _see_job(self, name: str) -> None:
        # HAProxy asks a host that it has found down once a second whether it is back, and refuses requests until then.
        done = until(lambda: self._state(self._job) == "done", READY_SECONDS)
        audio = self._client.get(f"/audio/{self._job}")
        seen = f"{self._state(self._job)}, {len(audio.content)} bytes of audio"
        self._see(name, seen, done and audio.status_code == 200)

    def _queued(self, text: str) -> str:
        response = self._client.post("/queue", json={"text": text, "character": "default"})
        response.raise_for_status()
        return str(response.json()["requestId"])

    def _status(self, job: str) -> dict[str, Any]:
        response = self._client.get(f"/status/{job}")
        return dict(response.json()) if response.status_code == 200 else {}

    def _state(self, job: str) -> str | None:
        return self._status(job).get("state")

    def _ready(self) -> bool:
        try:
            return self._client.get("/ready").status_code == 200
        except httpx.HTTPError:
            return False

    def _address(self, service: str) -> str:
        network = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return self._podman.read("inspect", f"--format={network}", Compose.container(service))

    def _report_logs(self) -> None:
        for service in SERVICES:
            log = self._podman.run("logs", f"--tail={LOG_LINES}", Compose.container(service), check=False)
            report_progress(f"{service}:\n{log.stdout}{log.stderr}")

    def _log_entries(self) -> list[dict[str, Any]]:
        log = self._podman.run("logs", Compose.container("chorus"))
        return [json.loads(line) for line in (log.stdout + log.stderr).splitlines() if line.startswith("{")]
