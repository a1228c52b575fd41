"""`python -m balancer.launch.watchdog FOLDER SECONDS`: kills a balancer whose event loop stands still.

Where none runs for some ticks, the stand-in answers in its place.

supervisord runs this as an event listener (http://supervisord.org/events.html) and sends it an event every five
seconds; it sees a balancer as running even where that is stopped or deadlocked, and starts it anew once it is killed.
The worker has a watchdog of its own, for its model.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import TextIO

from balancer.launch.stand_in import StandIn
from balancer.listening_sockets import take_over
from balancer.operations.heartbeat import read_beats
from balancer.runtime.systemd import notify
from worker.descriptors import close_inherited
from worker.logs import configure

log = logging.getLogger(__name__)

TICK_SECONDS = 5
"""Interval of supervisord's TICK_5 events."""
MAX_ABSENT_TICKS = 3
"""Ticks in a row without a balancer after which the stand-in answers: a start takes less time, on a host under load
too."""


class BalancerWatchdog:
    """Counts for how many ticks in a row each process has not beaten.

    Ticks, not time: while this process, supervisord or the whole host is suspended, there are none.
    """

    def __init__(self, seconds: float) -> None:
        self._max_ticks = ceil(seconds / TICK_SECONDS)
        self._beats: dict[int, int] = {}
        self._silent_ticks: dict[int, int] = {}

    def tick(self, beats: dict[int, int]) -> list[int]:
        """Takes the counts of a tick, by process id; returns the processes that have been silent for too long."""
        self._silent_ticks = {
            pid: self._silent_ticks.get(pid, 0) + 1 if self._beats.get(pid) == count else 0
            for pid, count in beats.items()
        }
        self._beats = beats
        return [pid for pid, ticks in self._silent_ticks.items() if ticks == self._max_ticks]


def run(
    folder: Path, watchdog: BalancerWatchdog | None, events: TextIO, answers: TextIO, stand_in: StandIn | None = None
) -> None:
    """Answer supervisord's events until it closes `events`; without a watchdog, no balancer is killed."""
    absent_ticks = 0
    while True:
        answers.write("READY\n")
        answers.flush()
        header = events.readline()
        if not header:
            return
        events.read(int(dict(token.split(":", 1) for token in header.split())["len"]))
        absent_ticks = 0 if runs(folder) else absent_ticks + 1  # one that is killed now has run until now
        for pid in watchdog.tick(read_beats(folder)) if watchdog is not None else []:
            _kill(pid)
        if stand_in is not None and absent_ticks >= MAX_ABSENT_TICKS:
            stand_in.start()
        notify("WATCHDOG=1")  # supervisord is alive: it has just sent an event
        answers.write("RESULT 2\nOK")
        answers.flush()


def runs(folder: Path) -> bool:
    """Whether a process with a heartbeat in `folder` runs."""
    return any(_is_balancer(pid) for pid in read_beats(folder))


def _is_balancer(pid: int) -> bool:
    """Whether the process runs, and no other program has its number by now."""
    try:
        return b"balancer" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def _kill(pid: int) -> None:
    if _is_balancer(pid):
        with suppress(OSError):  # it has just ended
            os.kill(pid, signal.SIGKILL)
            log.error("the event loop of the balancer (pid %d) stands still: killed it", pid)


def main() -> None:
    """Watch the balancers whose heartbeats are in the folder."""
    listeners = take_over(os.environ)
    close_inherited(keep=[listener.fileno() for listener in listeners])
    configure("watchdog", level="info", log_format=os.environ.get("CHORUS_LOG_FORMAT", "text"))
    folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
    stand_in = StandIn(listeners, lambda: runs(folder))
    run(folder, BalancerWatchdog(seconds) if seconds else None, sys.stdin, sys.stdout, stand_in)


if __name__ == "__main__":
    main()
