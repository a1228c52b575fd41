from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest

from balancer.launch import stand_in as module
from balancer.launch.stand_in import RETRY_SECONDS, StandIn
from balancer.listening_sockets import listen, refuse
from tests.support.harness import TIMEOUT, wait_until


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of these tests may be held up for longer than it usually has for its request."""
    monkeypatch.setattr(module, "READ_SECONDS", TIMEOUT)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    (listener,) = listen("127.0.0.1", 0)
    with listener:
        yield listener


def url(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}/tts"


def test_it_answers_until_a_balancer_serves(listener: socket.socket) -> None:
    serving = threading.Event()
    stand_in = StandIn([listener], serving.is_set)
    stand_in.start()
    for body in (b"{}", b"x" * 1_000_000):
        answer = httpx.post(url(listener), content=body, timeout=TIMEOUT)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, str(RETRY_SECONDS))
        assert answer.json()["error"]["code"] == "not_started"
    serving.set()
    wait_until(lambda: not stand_in.running)
    with socket.create_connection(listener.getsockname(), TIMEOUT):
        accepted, _ = listener.accept()  # the next connection is the balancer's
        accepted.close()


def test_connections_that_it_has_accepted_are_answered_before_it_ends(listener: socket.socket) -> None:
    clients: list[socket.socket] = []
    looks = itertools.count()

    def serving() -> bool:
        # It accepts between two looks whether a balancer serves.
        if len(clients) < 20 or next(looks) < 2:
            return False
        for client in clients:
            client.sendall(b"GET /ready HTTP/1.1\r\n\r\n")
        return True

    stand_in = StandIn([listener], serving)
    stand_in.start()
    for _ in range(20):
        clients.append(socket.create_connection(listener.getsockname(), TIMEOUT))
    for client in clients:
        with client, client.makefile("rb") as answer:
            assert answer.read().startswith(b"HTTP/1.1 503 ")
    wait_until(lambda: not stand_in.running)


def test_a_client_that_has_left_is_no_error(listener: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_connection(listener.getsockname(), TIMEOUT) as client:
        client.sendall(b"GET /ready HTTP/1.1\r\n\r\n")
    serving = threading.Event()
    stand_in = StandIn([listener], serving.is_set)
    stand_in.start()
    assert httpx.get(url(listener), timeout=TIMEOUT).status_code == 503
    serving.set()
    wait_until(lambda: not stand_in.running)
    assert [record.getMessage() for record in caplog.records] == [
        "no balancer serves: connections are answered with 503 until one does"
    ]


def test_it_closes_with_the_port_and_does_not_open_it_again(listener: socket.socket) -> None:
    stand_in = StandIn([listener], lambda: False)
    stand_in.start()
    assert httpx.get(url(listener), timeout=TIMEOUT).status_code == 503
    refuse([listener])
    wait_until(lambda: not stand_in.running)
    stand_in.start()
    assert not stand_in.running
    with pytest.raises(httpx.ConnectError):
        httpx.get(url(listener), timeout=TIMEOUT)


def test_without_sockets_it_does_nothing() -> None:
    stand_in = StandIn([], lambda: False)
    stand_in.start()
    assert not stand_in.running
