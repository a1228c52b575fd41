"""What operators do to a server under load: drain, restart, recycle. No client notices."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
import pytest

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


def balancers_of(chorus: Chorus) -> list[psutil.Process]:
    """The processes that run a balancer: two of them during a restart."""
    found = []
    for process in chorus.children():
        with suppress(psutil.NoSuchProcess):
            if process.cmdline()[-2:] == ["-m", "balancer"]:
                found.append(process)
    return found


def balancer_of(chorus: Chorus) -> psutil.Process:
    (balancer,) = balancers_of(chorus)
    return balancer


class Host(NamedTuple):
    """A server with one worker, and its folder of voices."""

    chorus: Chorus
    voices: Path


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Shared by the tests after which one balancer and one worker serve again, whichever processes these are."""
    voices = tmp_path_factory.mktemp("host") / "voices"
    shutil.copytree(ROOT / "voices" / "default", voices / "default")
    with start_chorus("--workers", "1", voices_dir=voices, recovery_seconds=TIMEOUT) as chorus:
        yield Host(chorus, voices)


@pytest.fixture
def single(host: Host) -> Chorus:
    """The shared server, with its worker ready and its one balancer."""
    wait_until(lambda: len(balancers_of(host.chorus)) == 1)
    host.chorus.await_ready(1)
    return host.chorus


def connect_and_never_read(chorus: Chorus, request: bytes) -> socket.socket:
    """A client that sends a request and reads nothing of its answer."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", int(chorus.url.rpartition(":")[2])))
    client.sendall(request)
    return client


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
        wait_until(lambda: len(balancers_of(chorus)) == 1)
        assert balancer_of(chorus).pid != balancer.pid
        assert balancer_of(chorus).ppid() == chorus.process.pid, "supervisord watches over it"
        spoken = chorus.metric("chorus_requests_total", surface="/tts")
        assert spoken < load.answered, "but it counts from the start"
        assert chorus.metric("chorus_workers_lost_total") == 0
        assert httpx.post(f"{chorus.url}/tts", json={"text": "Hello.", "seed": 1}).content == spoken_before


def test_clients_that_do_not_end_hold_up_no_restart_and_are_cut_at_the_grace() -> None:
    """One client does not read its answer, and another listens to events of a job that waits."""
    with start_chorus("--workers", "1", stop_seconds=5) as chorus:
        old = balancer_of(chorus)
        text = "The quick brown fox jumps over the lazy dog near the river bank. " * 40
        waiting = [httpx.post(f"{chorus.url}/queue", json={"text": text}).json() for _ in range(20)][-1]
        events = f"GET /status/{waiting['requestId']} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"
        asset = "GET /docs/assets/swagger-editor-bundle.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        with (
            connect_and_never_read(chorus, asset.encode()) as deaf,
            connect_and_never_read(chorus, events.encode()) as listening,
        ):
            assert listening.recv(12) == b"HTTP/1.1 200"
            chorus.supervisorctl("start", "balancer-next")
            answered: list[int] = []
            while old in balancers_of(chorus):
                answered.append(httpx.get(f"{chorus.url}/ready", timeout=TIMEOUT).status_code)
            assert set(answered) == {200}
            deaf.settimeout(TIMEOUT)
            with suppress(ConnectionResetError):
                while deaf.recv(65_536):
                    pass
        assert "killing 'balancer'" not in chorus.log.read_text(), "it ended by itself, after its last steps"
        assert balancer_of(chorus) != old


def test_jobs_go_on_in_the_successor_and_none_is_done_twice(single: Chorus) -> None:
    old = balancer_of(single)
    jobs = [httpx.post(f"{single.url}/queue", json={"text": f"Job number {n}."}).json()["requestId"] for n in range(10)]
    single.supervisorctl("start", "balancer-next")

    def states() -> set[str]:
        return {httpx.get(f"{single.url}/status/{job}").json()["state"] for job in jobs}

    wait_until(lambda: old not in balancers_of(single))
    wait_until(lambda: states() == {"done"}, timeout=TIMEOUT * 2)

    def synthesized() -> list[int]:
        log = single.log.read_text()
        return [log.count(f"job {job} synthesized") for job in jobs]

    wait_until(lambda: all(synthesized()))  # the lines come to the log a moment after the answers
    assert synthesized() == [1] * len(jobs)


def test_a_killed_balancer_costs_no_refused_connection(single: Chorus) -> None:
    address = ("127.0.0.1", int(single.url.rpartition(":")[2]))
    killed = balancer_of(single)
    killed.kill()

    def served() -> bool:
        socket.create_connection(address).close()  # raises if it is refused
        # A balancer that takes long to start on a busy machine is spoken for: 503.
        return httpx.get(f"{single.url}/ready", timeout=TIMEOUT).status_code == 200

    wait_until(lambda: served() and killed not in balancers_of(single), timeout=TIMEOUT * 2)
    assert httpx.post(f"{single.url}/tts", json={"text": "Hello."}, timeout=TIMEOUT).status_code == 200


def test_a_balancer_that_stands_still_is_replaced() -> None:
    with start_chorus("--workers", "1", balancer_watchdog_seconds=5) as chorus:
        stopped = balancer_of(chorus)
        stopped.suspend()
        # Connections wait for the next one, or are answered 503 if it takes long to start on a busy machine.
        ready = f"{chorus.url}/ready"
        wait_until(lambda: httpx.get(ready, timeout=TIMEOUT * 2).status_code == 200, timeout=TIMEOUT * 2)
        assert stopped not in balancers_of(chorus)
        told = f"the event loop of the balancer (pid {stopped.pid}) stands still"
        wait_until(lambda: told in chorus.log.read_text())
        assert chorus.metric("chorus_workers_lost_total") == 0


def test_a_rolling_restart_of_a_single_worker_makes_clients_wait_only(single: Chorus) -> None:
    load = Load(single.url)
    with load.running():
        wait_until(lambda: load.answered > CLIENTS)
        done = chorus_command(single, "restart", "--rolling", "--workers-only")
    assert done.returncode == 0, done.stderr
    assert load.failures == []


def test_a_balancer_that_cannot_start_replaces_none_and_is_not_tried_for_ever(single: Chorus, host: Host) -> None:
    before = balancer_of(single).pid
    elsewhere = host.voices.rename(host.voices.with_name("elsewhere"))
    transport = httpx.HTTPTransport(uds=str(single.run_dir / "control.sock"))
    with httpx.Client(transport=transport, base_url="http://control", timeout=TIMEOUT) as control:
        assert control.post("/restart").status_code == 202
        wait_until(lambda: control.get("/state").json()["successorFailure"] is not None)
    elsewhere.rename(host.voices)
    assert balancer_of(single).pid == before
    assert httpx.post(f"{single.url}/tts", json={"text": "Hello."}, timeout=TIMEOUT).status_code == 200
    # The two programs take turns: the successor is the one that does not run.
    told = re.compile(r"balancer(-next)? \(exit status 78; expected\)")
    wait_until(lambda: told.search(single.log.read_text()) is not None)


def test_a_drained_host_is_out_of_service_until_it_is_resumed(single: Chorus) -> None:
    done = chorus_command(single, "drain")
    assert done.returncode == 0, done.stderr
    assert "nothing is in flight" in done.stderr
    ready = httpx.get(f"{single.url}/ready")
    assert ready.status_code == 503
    assert "drain" in ready.json()["reason"]
    assert httpx.post(f"{single.url}/tts", json={"text": "Served all the same."}).status_code == 200
    assert httpx.get(f"{single.url}/health").status_code == 200
    assert chorus_command(single, "resume").returncode == 0
    assert httpx.get(f"{single.url}/ready").status_code == 200


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


def test_a_restart_that_is_not_rolling_is_not_offered(single: Chorus) -> None:
    done = chorus_command(single, "restart")
    assert done.returncode == 1
    assert "only --rolling" in done.stderr
