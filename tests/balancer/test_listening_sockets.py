from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from balancer.host.processes import free_port
from balancer.listening_sockets import (
    MIN_DESCRIPTOR,
    VARIABLE,
    listen,
    pass_on,
    refuse,
    take_from_systemd,
    take_over,
)
from tests.support.harness import ROOT, environment

SUCCESSOR = """
import os
from balancer.listening_sockets import take_over
(listener,) = take_over(os.environ)
listener.setblocking(True)
connection, _ = listener.accept()
connection.sendall(b"from the successor")
"""

FROM_SYSTEMD = """
import os
from balancer.listening_sockets import take_from_systemd
print(*(listener.getsockname()[1] for listener in take_from_systemd(os.environ)))
"""


def test_a_connection_made_before_exec_is_answered_after_it() -> None:
    port = free_port()
    listeners = listen("127.0.0.1", port)
    environ = environment()
    pass_on(listeners, environ)
    descriptor = int(environ[VARIABLE])
    with socket.create_connection(("127.0.0.1", port)) as client:
        subprocess.run([sys.executable, "-c", SUCCESSOR], cwd=ROOT, env=environ, pass_fds=[descriptor], check=True)
        assert client.recv(100) == b"from the successor"
    os.close(descriptor)


def test_without_a_predecessor_there_are_no_sockets_to_take_over() -> None:
    assert take_over({}) == []


def test_sockets_that_were_taken_over_are_not_inherited_by_other_programs() -> None:
    (listener,) = listen("127.0.0.1", free_port())
    environ: dict[str, str] = {}
    pass_on([listener], environ)
    (taken,) = take_over(environ)
    assert taken.fileno() >= MIN_DESCRIPTOR, "supervisord does not close it in its programs"
    assert not taken.get_inheritable()
    taken.close()


def test_a_duplicate_does_not_make_the_socket_block_in_all_processes() -> None:
    (listener,) = listen("127.0.0.1", 0)
    environ: dict[str, str] = {}
    pass_on([listener], environ)
    (taken,) = take_over(environ)
    with taken, taken.dup() as duplicate:
        assert duplicate.gettimeout() == 0, "it was not made blocking in between, either"
        assert not os.get_blocking(taken.fileno())


def test_the_port_refuses_at_once_although_another_process_holds_the_sockets() -> None:
    port = free_port()
    (listener,) = listen("127.0.0.1", port)
    held = listener.dup()
    with socket.create_connection(("127.0.0.1", port)) as waiting:
        refuse([listener])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        with pytest.raises(ConnectionResetError):
            waiting.recv(1)
    environ: dict[str, str] = {}
    pass_on([held], environ)
    assert take_over(environ) == [], "the next balancer opens its own"
    (again,) = listen("127.0.0.1", port)
    socket.create_connection(("127.0.0.1", port)).close()
    again.close()
    listener.close()


def test_the_unspecified_address_of_ipv6_serves_both_families() -> None:
    port = free_port()
    listeners = listen("::", port)
    for host in ("127.0.0.1", "::1"):
        with socket.create_connection((host, port)) as client:
            assert client.getpeername()[0] == host
    for listener in listeners:
        listener.close()


def test_sockets_of_a_systemd_unit_are_taken_by_the_process_that_they_are_meant_for() -> None:
    (listener,) = listen("127.0.0.1", free_port())
    shell = f'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&{listener.fileno()}'
    taken = subprocess.run(
        ["bash", "-c", shell, "bash", sys.executable, "-c", FROM_SYSTEMD],
        cwd=ROOT,
        env=environment(),
        pass_fds=[listener.fileno()],
        capture_output=True,
        check=True,
    )
    assert taken.stdout.decode().split() == [str(listener.getsockname()[1])]
    assert take_from_systemd({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) == []
    listener.close()


def test_every_address_of_a_name_gets_a_socket() -> None:
    port = free_port()
    known = {address for *_, address in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)}
    listeners = listen("localhost", port)
    assert {listener.getsockname() for listener in listeners} == known
    for listener in listeners:
        listener.close()
