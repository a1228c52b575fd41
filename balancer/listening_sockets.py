"""The sockets that clients connect to, which outlive the process: a balancer that replaces itself hands them on.

The kernel keeps connections waiting while nobody accepts them, so a restart loses none.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

VARIABLE = "CHORUS_LISTENERS"
"""Environment variable with the numbers of the open sockets."""

BACKLOG = 2048


def listen(host: str, port: int) -> list[socket.socket]:
    """A listening socket for every address that the host's name means. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners = []
    for family, kind, protocol, _, address in dict.fromkeys(found):
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # its IPv4 sibling has a socket of its own
        listener.bind(address)
        listener.listen(BACKLOG)
        listeners.append(listener)
    return listeners


def hand_on(listeners: list[socket.socket], environ: MutableMapping[str, str]) -> None:
    """Keep the sockets open over exec, and note them in `environ` for `taken_over`."""
    for listener in listeners:
        listener.set_inheritable(True)
    environ[VARIABLE] = ",".join(str(listener.fileno()) for listener in listeners)


def taken_over(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The sockets that the process before this one handed on, if it did."""
    numbers = environ.pop(VARIABLE, "")
    listeners = [socket.socket(fileno=int(number)) for number in numbers.split(",") if number]
    for listener in listeners:
        listener.set_inheritable(False)
        os.set_blocking(listener.fileno(), False)
    return listeners
