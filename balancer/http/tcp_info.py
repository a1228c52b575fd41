"""The kernel's view of a TCP connection: whether the client has closed its side, and how much of the answer it has."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

_ESTABLISHED = 1
_BYTES_ACKED_OFFSET = 120
_TCP_INFO = struct.Struct(f"=B{_BYTES_ACKED_OFFSET - 1}xQ")
"""The first and one later field of Linux's `struct tcp_info` (linux/tcp.h)."""


class TcpInfo(NamedTuple):
    """The state of a TCP connection."""

    open: bool
    """Whether neither side has closed the connection."""
    bytes_acked: int
    """Bytes that the client's kernel has acknowledged since the connection began."""


def read_tcp_info(connection: socket.socket) -> TcpInfo | None:
    """The state of a connection; None if it is not a TCP connection, or is closed."""
    try:
        raw = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    except (OSError, ValueError):
        return None
    if len(raw) < _TCP_INFO.size:
        return None
    state, bytes_acked = _TCP_INFO.unpack(raw)
    return TcpInfo(state == _ESTABLISHED, bytes_acked)
