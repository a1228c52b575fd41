from __future__ import annotations

import os
import socket
import subprocess
import sys

from balancer.host.processes import free_port
from balancer.listening_sockets import VARIABLE, listen, pass_on, take_over
from tests.support.harness import ROOT, environment

SUCCESSOR = """
import os
from balancer.listening_sockets import take_over
(listener,) = take_over(os.environ)
listener.setblocking(True)
connection, _ = listener.accept()
connection.sendall(b"from the successor")
"""


def test_a_connection_made_before_exec_is_answered_after_it() -> None:
    port = free_port()
    listeners = listen("127.0.0.1", port)
    environ = environment()
    pass_on(listeners, environ)
    with socket.create_connection(("127.0.0.1", port)) as client:
        subprocess.run(
            [sys.executable, "-c", SUCCESSOR], cwd=ROOT, env=environ, pass_fds=[listeners[0].fileno()], check=True
        )
        assert client.recv(100) == b"from the successor"
    for listener in listeners:
        listener.close()


def test_without_a_predecessor_there_are_no_sockets_to_take_over() -> None:
    assert take_over({}) == []


def test_sockets_that_were_taken_over_are_not_inherited_by_other_programs() -> None:
    (listener,) = listen("127.0.0.1", free_port())
    environ: dict[str, str] = {}
    pass_on([listener], environ)
    (taken,) = take_over({VARIABLE: str(os.dup(int(environ[VARIABLE])))})
    assert not taken.get_inheritable()
    taken.close()
    listener.close()


def test_every_address_of_a_name_gets_a_socket() -> None:
    port = free_port()
    known = {address for *_, address in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)}
    listeners = listen("localhost", port)
    assert {listener.getsockname() for listener in listeners} == known
    for listener in listeners:
        listener.close()
