"""Time limits of transfers: of a body that comes, and of a response that its client should read."""

from __future__ import annotations

import socket
from math import inf

from balancer.http.tcp_info import read_tcp_info
from balancer.settings.http import HttpSettings


class TransferDeadline:
    """A time limit that moves on with the bytes that are transferred, but never further than `seconds` ahead.

    So a transfer may pause for `seconds`, and one that is slower than `bytes_per_second` for long runs into it.
    """

    def __init__(self, seconds: float, bytes_per_second: float) -> None:
        self._seconds = seconds
        self._bytes_per_second = bytes_per_second
        self.at = inf
        """In the event loop's time."""

    def start(self, now: float) -> None:
        """Begin to count."""
        self.at = now + self._seconds

    def advance(self, transferred: int, now: float) -> None:
        """Move on by the bytes that were transferred since the last time."""
        self.at = min(now + self._seconds, self.at + transferred / self._bytes_per_second)


class ResponseWatch:
    """Whether a client reads its responses. Asked about once a second."""

    def __init__(self, connection: socket.socket | None, settings: HttpSettings) -> None:
        self._connection = connection
        self._deadline = TransferDeadline(settings.write_seconds, settings.min_bytes_per_second)
        self._unsent = 0
        self._acked = 0

    def all_sent(self) -> None:
        """The kernel has taken all that was written."""
        self._deadline.at = inf

    def is_overdue(self, unsent: int, now: float) -> bool:
        """Whether the client has read nothing, or too little, for too long; `unsent` bytes wait for the kernel."""
        info = None if self._connection is None else read_tcp_info(self._connection)
        acked = 0 if info is None else info.bytes_acked
        if self._deadline.at == inf:
            self._deadline.start(now)
        else:
            self._deadline.advance(max(acked - self._acked, self._unsent - unsent), now)
        self._acked, self._unsent = acked, unsent
        return now > self._deadline.at
