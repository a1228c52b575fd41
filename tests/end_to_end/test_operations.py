"""What operators do to a server under load: drain, restart, recycle. No client notices."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psutil

from tests.end_to_end.conftest import CHORUS, Chorus, start_chorus
from tests.support.harness import ROOT, TIMEOUT, environment, wait_until

CLIENTS = 3


class Load:
    """Clients that ask one request after another, each on a connection that it keeps."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=[number]) for number in range(CLIENTS)]
        self.answered = 0
        self.failures: list[str] = []

    def _ask(self, number: int) -> None:
        with httpx.Client(base_url=self._url, timeout=TIMEOUT * 2) as client:
            while not self._over.is_set():
                try:
                    answer = client.post("/tts", json={"text": f"Client number {number} speaks on and on."})
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                else:
                    self.answered += 1
                    if answer.status_code != 200:
                        self.failures.append(f"{answer.status_code} {answer.text[:200]}")

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join()


def chorus_command(chorus: Chorus, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CHORUS, *arguments, "--run-dir", str(chorus.run_dir)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT * 8,
    )


def balancer_of(chorus: Chorus) -> psutil.Process:
    return next(process for process in chorus.children() if process.cmdline()[-2:] == ["-m", "balancer"])


def test_a_rolling_restart_replaces_every_process_and_no_request_fails() -> None:
    with start_chorus("--workers", "2") as chorus:
        chorus.await_ready(2)
        workers = {worker["pid"] for worker in chorus.workers()}
        balancer = balancer_of(chorus)
        spoken_before = httpx.post(f"{chorus.url}/tts", json={"text": "Hello.", "seed": 1}).content
        load = Load(chorus.url)
        with load.running():
            wait_until(lambda: load.answered > CLIENTS)
            done = chorus_command(chorus, "restart", "--rolling")
            answered = load.answered
            wait_until(lambda: load.answered > answered + CLIENTS)
        assert done.returncode == 0, done.stderr
        assert load.failures == []
        assert "worker 1: ready again" in done.stderr
        assert "balancer: ready again" in done.stderr
        chorus.await_ready(2)
        assert workers.isdisjoint(worker["pid"] for worker in chorus.workers())
        assert balancer_of(chorus).pid == balancer.pid, "supervisord still watches over it"
        assert chorus.metric("chorus_requests_total") < load.answered, "but it counts from the start"
        assert chorus.metric("chorus_workers_lost_total") == 0
        assert httpx.post(f"{chorus.url}/tts", json={"text": "Hello.", "seed": 1}).content == spoken_before


def test_a_rolling_restart_of_a_single_worker_makes_clients_wait_only() -> None:
    with start_chorus("--workers", "1", recovery_seconds=TIMEOUT) as chorus:
        load = Load(chorus.url)
        with load.running():
            wait_until(lambda: load.answered > CLIENTS)
            done = chorus_command(chorus, "restart", "--rolling", "--workers-only")
        assert done.returncode == 0, done.stderr
        assert load.failures == []


def test_a_drained_host_is_out_of_service_until_it_is_resumed() -> None:
    with start_chorus("--workers", "1") as chorus:
        done = chorus_command(chorus, "drain")
        assert done.returncode == 0, done.stderr
        assert "nothing is in flight" in done.stderr
        ready = httpx.get(f"{chorus.url}/ready")
        assert ready.status_code == 503
        assert "drain" in ready.json()["reason"]
        assert httpx.post(f"{chorus.url}/tts", json={"text": "Served all the same."}).status_code == 200
        assert httpx.get(f"{chorus.url}/health").status_code == 200
        assert chorus_command(chorus, "resume").returncode == 0
        assert httpx.get(f"{chorus.url}/ready").status_code == 200


def test_workers_past_their_limit_are_replaced_one_at_a_time_under_load() -> None:
    with start_chorus("--workers", "2", recycle_utterances=5) as chorus:
        chorus.await_ready(2)
        first = {worker["pid"] for worker in chorus.workers()}
        seen_together: list[int] = []

        def replaced() -> bool:
            phases = [worker["phase"] for worker in chorus.workers()]
            seen_together.append(sum(phase in ("ready", "busy") for phase in phases))
            return first.isdisjoint(worker.get("pid") for worker in chorus.workers())

        load = Load(chorus.url)
        with load.running():
            wait_until(replaced, timeout=TIMEOUT * 4)
        assert load.failures == []
        assert min(seen_together) >= 1, "one was always there"
        assert chorus.metric("chorus_workers_lost_total") == 0


def test_the_commands_say_where_no_server_answers() -> None:
    done = subprocess.run(
        [CHORUS, "drain", "--run-dir", "/nowhere"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "no server answers at /nowhere/control.sock" in done.stderr.replace("\n", " ")


def test_a_restart_that_is_not_rolling_is_not_offered(chorus: Chorus) -> None:
    done = chorus_command(chorus, "restart")
    assert done.returncode == 1
    assert "only --rolling" in done.stderr
