"""The listening sockets. They outlive every balancer: supervisord holds them, and each balancer inherits them from it.

While no process accepts connections the kernel queues them, so neither a crash nor a restart refuses any. Two balancers
may accept from the same sockets. When the server stops, `refuse` closes the port at once, whoever holds the sockets.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import MutableMapping, Sequence
from contextlib import ExitStack

VARIABLE = "CHORUS_LISTENERS"
"""Environment variable with the file descriptors of the sockets, separated by commas."""

BACKLOG = 2048

MIN_DESCRIPTOR = 64
"""Sockets are passed on under descriptors from here on: supervisord closes all below its `minfds` in its programs, and
supervisord.conf sets that to this number."""

SYSTEMD_DESCRIPTOR = 3
"""The first descriptor of systemd's socket activation."""


def listen(host: str, port: int) -> list[socket.socket]:
    """Returns a listening socket for every address that `host` resolves to. Raises OSError.

    `::` stands for every address of both families, by a socket for each, where the host has IPv4.
    """
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    if any(address[0] == "::" for *_, address in addresses):
        # Not by one socket for both: its IPv4 clients would have IPv6 addresses, in logs, limits and access rules.
        addresses += socket.getaddrinfo("0.0.0.0", port, type=socket.SOCK_STREAM)  # noqa: S104 - asked for by `::`
    with ExitStack() as opened:
        listeners = []
        for family, kind, protocol, _, address in dict.fromkeys(addresses):
            listener = opened.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # the IPv4 address has its own socket
            listener.bind(address)
            listener.listen(BACKLOG)
            listeners.append(listener)
        opened.pop_all()  # all of them are open: they stay so
        return listeners


def pass_on(listeners: Sequence[socket.socket], environ: MutableMapping[str, str]) -> None:
    """Keeps the sockets open across exec, and writes their descriptors into `environ` for `take_over`."""
    descriptors = [fcntl.fcntl(listener.detach(), fcntl.F_DUPFD, MIN_DESCRIPTOR) for listener in listeners]
    environ[VARIABLE] = ",".join(map(str, descriptors))


def take_over(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """Returns the sockets that were passed on; an empty list if there are none, or if an earlier stop closed them."""
    descriptors = environ.pop(VARIABLE, "")
    listeners = [socket.socket(fileno=int(descriptor)) for descriptor in descriptors.split(",") if descriptor]
    if not all(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for listener in listeners):
        for listener in listeners:
            listener.close()
        return []
    for listener in listeners:
        listener.set_inheritable(False)
        # For good, also for duplicates: they share this state with every process that has the socket. While it is
        # blocking, a balancer that looks for one connection more stands still until there is one.
        listener.setblocking(False)
    return listeners


def take_from_systemd(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """Returns the sockets of a systemd socket unit, if it has started this process (`man 3 sd_listen_fds`)."""
    pid, number = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()):
        return []
    return [socket.socket(fileno=SYSTEMD_DESCRIPTOR + index) for index in range(int(number))]


def refuse(listeners: Sequence[socket.socket]) -> None:
    """Refuses connections from now on, in every process that holds these sockets; those that wait are reset."""
    for listener in listeners:
        try:
            listener.shutdown(socket.SHUT_RDWR)
        except OSError:  # it was refused before
            continue
