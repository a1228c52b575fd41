"""The listening sockets: a balancer that replaces itself passes them on to its successor, so they outlive the process.

While no process accepts connections the kernel queues them, so a restart loses none.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

VARIABLE = "CHORUS_LISTENERS"
"""Environment variable with the file descriptors of the sockets, separated by commas."""

BACKLOG = 2048


def listen(host: str, port: int) -> list[socket.socket]:
    """Returns a listening socket for every address that `host` resolves to. Raises OSError."""
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners = []
    for family, kind, protocol, _, address in dict.fromkeys(addresses):
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # the IPv4 address has its own socket
        listener.bind(address)
        listener.listen(BACKLOG)
        listeners.append(listener)
    return listeners


def pass_on(listeners: list[socket.socket], environ: MutableMapping[str, str]) -> None:
    """Keeps the sockets open across exec, and writes their descriptors into `environ` for `take_over`."""
    for listener in listeners:
        listener.set_inheritable(True)
    environ[VARIABLE] = ",".join(str(listener.fileno()) for listener in listeners)


def take_over(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """Returns the sockets that the previous process passed on; an empty list if there was none."""
    descriptors = environ.pop(VARIABLE, "")
    listeners = [socket.socket(fileno=int(descriptor)) for descriptor in descriptors.split(",") if descriptor]
    for listener in listeners:
        listener.set_inheritable(False)
        os.set_blocking(listener.fileno(), False)
    return listeners
