"""How a balancer process stops, and what it does without descriptors."""

from __future__ import annotations

import resource
import socket
import time
from pathlib import Path
from unittest.mock import AsyncMock

import httpx
import psutil
import pytest

from balancer.http.server import COLLECTION_THRESHOLDS, SWITCH_SECONDS
from balancer.process import create_server
from balancer.settings.settings import Settings, variable
from tests.support.harness import TIMEOUT, Server, serve_stub, wait_until

ASSET = "/docs/assets/swagger-editor-bundle.js"


def balancer_process(server: Server) -> psutil.Process:
    """The process of the server's balancer, by its control socket's answer."""
    control = httpx.HTTPTransport(uds=str(server.log.parent / "control.sock"))
    with httpx.Client(transport=control, timeout=TIMEOUT) as client:
        return psutil.Process(client.get("http://control/state").json()["pid"])


def address(server: Server) -> tuple[str, int]:
    return "127.0.0.1", int(server.url.rpartition(":")[2])


def connect_and_never_read(server: Server, path: str = ASSET) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(address(server))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return client


async def test_neither_threads_nor_garbage_keep_the_event_loop_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {variable(name): str(tmp_path / name) for name in ("data_dir", "cache_dir", "run_dir")}
    intervals: list[float] = []
    monkeypatch.setattr("sys.setswitchinterval", intervals.append)
    monkeypatch.setattr("gc.freeze", lambda: None)
    monkeypatch.setattr("gc.set_threshold", lambda *thresholds: intervals.extend(thresholds))
    monkeypatch.setattr("uvicorn.Server.startup", AsyncMock())
    await create_server(Settings.load(folders), []).startup()
    assert intervals == [*COLLECTION_THRESHOLDS, SWITCH_SECONDS]


def test_before_it_stops_it_says_so_for_a_while_and_serves_everything() -> None:
    with serve_stub(stop_delay_seconds=5) as server:
        process = balancer_process(server)
        assert server.client.get("/ready").status_code == 200
        process.terminate()
        wait_until(lambda: httpx.get(f"{server.url}/ready", timeout=TIMEOUT).status_code == 503)
        assert httpx.post(f"{server.url}/tts", json={"text": "Still here."}, timeout=TIMEOUT).status_code == 200
        process.wait(TIMEOUT)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address(server))


def test_a_second_signal_ends_the_wait() -> None:
    with serve_stub(stop_delay_seconds=600) as server:
        process = balancer_process(server)
        process.terminate()
        wait_until(lambda: httpx.get(f"{server.url}/ready", timeout=TIMEOUT).status_code == 503)
        process.terminate()
        process.wait(TIMEOUT)


def test_a_client_that_does_not_read_is_cut_at_the_grace_and_the_last_steps_run() -> None:
    with serve_stub(stop_seconds=1) as server:
        process = balancer_process(server)
        with connect_and_never_read(server):
            wait_until(lambda: len(process.net_connections("tcp")) > 1)
            started = time.monotonic()
            process.terminate()
            # Meanwhile the port is closed.
            wait_until(lambda: _refused(server))
            process.wait(TIMEOUT)
            assert time.monotonic() - started < TIMEOUT
        assert "Traceback" not in server.log.read_text()


def _refused(server: Server) -> bool:
    try:
        socket.create_connection(address(server)).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False


def test_without_descriptors_no_part_fails_and_no_worker_is_blamed() -> None:
    with serve_stub(probe_seconds=0.05) as server:
        process = balancer_process(server)
        used = process.num_fds()
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (used + 5, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        idle = [socket.create_connection(address(server)) for _ in range(50)]
        wait_until(lambda: process.num_fds() >= used + 5 or "Too many open files" in server.log.read_text())
        time.sleep(0.5)  # for some probes and looks into the run directory
        for client in idle:
            client.close()
        wait_until(lambda: _speaks(server))
        assert balancer_process(server).pid == process.pid
        metrics = httpx.get(f"{server.url}/metrics", timeout=TIMEOUT).text
        assert "chorus_workers_lost_total 0.0" in metrics
        assert "chorus_background_failures_total{" not in metrics


def _speaks(server: Server) -> bool:
    try:
        return httpx.post(f"{server.url}/tts", json={"text": "Hello."}, timeout=TIMEOUT).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_pause_of_the_balancer_is_not_blamed_on_a_worker() -> None:
    with serve_stub(probe_seconds=0.05, probe_failures=1) as server:
        process = balancer_process(server)
        for _ in range(2):
            process.suspend()
            time.sleep(3.0)  # longer than `probe_timeout`
            process.resume()
            assert httpx.post(f"{server.url}/tts", json={"text": "Hello."}, timeout=TIMEOUT).status_code == 200
        assert "chorus_workers_lost_total 0.0" in httpx.get(f"{server.url}/metrics", timeout=TIMEOUT).text
