"""A rolling restart of the balancer: a successor accepts beside its predecessor, which finishes what it has.

supervisord.conf has two programs that take turns, so that supervisord starts, watches and stops both. The running one
has supervisord start the other. That one, once it accepts connections, asks its predecessor over the control socket to
hand over, and has supervisord stop it: within the grace period, by SIGKILL after that. A successor that never comes to
accept changes nothing, and is stopped. Jobs and webhooks have one owner at all times, by the lock of their store.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from xmlrpc.client import Fault, ServerProxy

from httptools import HttpParserError

from balancer.fleet.unix_http import UnixHttpClient
from balancer.runtime.lifecycle import Lifecycle

log = logging.getLogger(__name__)

PROGRAMS = ("balancer", "balancer-next")
"""The programs of supervisord.conf that take turns."""

CLOSING_SECONDS = 2.0
"""Time before the predecessor is stopped, in which every response of it closes its connection: busy clients reconnect
by themselves."""

CONTROL_SECONDS = 5.0
"""Time limit of the request to hand over."""

SUCCESSION_SECONDS = 120.0
"""Time after which a successor that does not take over is stopped. Its start may read all weights."""

POLL_INTERVAL_SECONDS = 0.2


class NotSupervisedError(Exception):
    """supervisord has not started this process as one of PROGRAMS, so that it has no successor."""


class ProgramState(NamedTuple):
    """The state of a program as supervisord reports it."""

    pid: int
    """0 if it does not run."""
    ended: bool
    """Whether it has ended without being told to."""


@dataclass(frozen=True)
class Supervision:
    """The supervisord that runs this process, whose API is at `url`, and the program's name in it."""

    url: str
    program: str

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Supervision | None:
        """Returns what supervisord says in the environment; None if it has not started this process."""
        url, program = environ.get("SUPERVISOR_SERVER_URL"), environ.get("SUPERVISOR_PROCESS_NAME")
        return cls(url, program) if url and program in PROGRAMS else None

    @property
    def other(self) -> str:
        """The program that takes turns with this one."""
        return PROGRAMS[1 - PROGRAMS.index(self.program)]

    # These block.

    def start_other(self) -> None:
        """Starts the successor. Waits until the other program has stopped, if it is still finishing."""
        while self._info(self.other)["statename"] == "STOPPING":
            time.sleep(POLL_INTERVAL_SECONDS)
        self._supervisor().startProcess(self.other, False)

    def has_predecessor(self) -> bool:
        """Whether the other program runs, and has been started before this process."""
        pid = self._info(self.other)["pid"]
        # By the kernel's clock. If both were started anew at once, exactly one is the successor.
        return bool(pid) and (_started(pid), pid) < (_started(os.getpid()), os.getpid())

    def state_of_other(self) -> ProgramState:
        """The state of the other program."""
        info = self._info(self.other)
        return ProgramState(info["pid"], info["statename"] in ("BACKOFF", "EXITED", "FATAL"))

    def stop_other(self) -> None:
        """Has supervisord stop the other program; does not wait for its end."""
        self._supervisor().stopProcess(self.other, False)

    def _info(self, program: str) -> dict[str, Any]:
        info: dict[str, Any] = self._supervisor().getProcessInfo(program)
        return info

    def _supervisor(self) -> Any:
        from supervisor.xmlrpc import SupervisorTransport  # noqa: PLC0415 - only a handover needs it

        return ServerProxy("http://supervisor", transport=SupervisorTransport(None, None, self.url)).supervisor


class Succession:
    """Starts a successor, which takes over by itself, and stops one that fails to."""

    def __init__(self, supervision: Supervision | None, lifecycle: Lifecycle) -> None:
        self._supervision = supervision
        self._lifecycle = lifecycle
        self._watching: asyncio.Task[None] | None = None
        self.failure: str | None = None
        """Why the latest successor has not taken over; None while it may."""

    async def start(self) -> None:
        """Has supervisord start a successor. Raises NotSupervisedError."""
        if self._supervision is None:
            raise NotSupervisedError("supervisord does not run this balancer: start the server with `chorus serve`")
        self.failure = None
        await asyncio.to_thread(self._supervision.start_other)
        if self._watching is not None:
            self._watching.cancel()
        self._watching = asyncio.create_task(self._watch(self._supervision))

    async def _watch(self, supervision: Supervision) -> None:
        deadline, pid = time.monotonic() + SUCCESSION_SECONDS, 0
        while not self._lifecycle.handed_over:
            state = await asyncio.to_thread(supervision.state_of_other)
            pid = pid or state.pid
            if state.ended or state.pid not in (0, pid):
                reason = "it ended: the log says why"
            elif time.monotonic() > deadline:
                reason = f"it did not take over within {SUCCESSION_SECONDS:g} s"
            else:
                await asyncio.sleep(POLL_INTERVAL_SECONDS)
                continue
            with suppress(Fault):  # it is not running
                await asyncio.to_thread(supervision.stop_other)
            log.error("the next balancer does not take over, and is not tried again: %s", reason)
            self.failure = reason
            return


async def ask_predecessor(supervision: Supervision | None, control_socket: Path, lifecycle: Lifecycle) -> bool:
    """Asks the predecessor to hand over, once this process accepts connections. Returns whether there is one."""
    await lifecycle.accepting.wait()
    if supervision is None or not await asyncio.to_thread(supervision.has_predecessor):
        return False
    control = UnixHttpClient(control_socket)
    try:
        async with asyncio.timeout(CONTROL_SECONDS):
            await control.request("POST", "/hand-over", b"", _IgnoredResponse())
    except (OSError, HttpParserError) as error:
        # It hangs, or it was asked before by a successor that crashed: it is stopped all the same.
        log.warning("the previous balancer does not answer, and is stopped: %s", error or type(error).__name__)
    finally:
        control.close()
    return True


class _IgnoredResponse:
    """Takes a response of which only the arrival matters."""

    def on_status(self, status: int) -> None:
        """The headers have arrived."""

    def on_data(self, data: bytes) -> None:
        """A part of the body has arrived."""


async def stop_predecessor(supervision: Supervision) -> None:
    """Stops the predecessor once its busy clients have reconnected."""
    await asyncio.sleep(CLOSING_SECONDS)
    try:
        await asyncio.to_thread(supervision.stop_other)
    except Fault as error:
        log.info("the previous balancer has ended: %s", error.faultString)


def _started(pid: int) -> int:
    """Start of the process, in clock ticks since the boot; 0 if there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    except (OSError, IndexError):
        return 0
