"""One worker's socket: the contract, spoken over HTTP, whose errors are translated here and nowhere else."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import dataclass, field
from pathlib import Path

import httptools
from pydantic import ValidationError

from balancer.fleet.unix_http import UnixHttp
from worker.contract import (
    SAMPLE_BYTES,
    EndOfUtterance,
    FrameDecoder,
    FrameKind,
    FramingError,
    Utterance,
    UtteranceError,
    WorkerState,
)

OK, ACCEPTED = 200, 202

NOT_ACCEPTED = (errno.EAGAIN, errno.ENOTCONN)
"""What comes of dialling a socket whose owner accepts nobody, once its queue is full; which one depends on the event
loop."""


class WorkerLostError(Exception):
    """The worker did not answer to the end.

    `dead`: there is nobody behind the socket. `silent`: somebody is, and says nothing. `accepted`: it had begun the
    utterance.
    """

    def __init__(self, reason: str, *, dead: bool = False, silent: bool = False, accepted: bool = False) -> None:
        super().__init__(reason)
        self.dead = dead
        self.silent = silent
        self.accepted = accepted


class WorkerFullError(Exception):
    """The worker has no free slot, or is not ready: no fault of the utterance."""


class UtteranceRefusedError(Exception):
    """The worker will not, or could not, speak this utterance: trying elsewhere would end the same."""

    def __init__(self, error: UtteranceError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(frozen=True)
class Spoken:
    """A whole utterance: its PCM, and what the worker says of it."""

    pcm: bytes
    end: EndOfUtterance


class Connection:
    """A client of the worker at `path`. Synthesis has no time limit here: each attempt has one."""

    def __init__(self, path: Path, *, state_timeout: float) -> None:
        self._http = UnixHttp(path)
        self._state_timeout = state_timeout

    async def state(self) -> WorkerState:
        """The worker's state. Raises WorkerLostError."""
        answer = await self._ask("GET", "/state")
        try:
            return WorkerState.model_validate_json(answer)
        except ValidationError as error:
            raise WorkerLostError(f"its state is not of this version: {error}") from error

    async def drain(self) -> None:
        """Have it finish what it has and end. Raises WorkerLostError."""
        await self._ask("POST", "/drain")

    async def synthesize(self, utterance: Utterance) -> Spoken:
        """The whole utterance. Cancelling it cancels the utterance.

        Raises WorkerLostError, WorkerFullError, UtteranceRefusedError.
        """
        answer = _Synthesis()
        try:
            await self._http.ask("POST", "/synthesize", utterance.model_dump_json().encode(), answer)
            return answer.whole()
        except OSError as error:
            raise WorkerLostError(_reason(error), dead=True, accepted=answer.accepted) from error
        except (httptools.HttpParserError, FramingError, ValidationError) as error:
            raise WorkerLostError(f"it does not speak the contract: {error}", accepted=answer.accepted) from error

    async def close(self) -> None:
        """Close every connection; what is under way on them breaks off."""
        self._http.close()

    async def _ask(self, method: str, target: str) -> bytes:
        answer = _Report()
        try:
            async with asyncio.timeout(self._state_timeout):
                await self._http.ask(method, target, b"", answer)
        except TimeoutError as error:
            raise WorkerLostError(f"no answer within {self._state_timeout} s", silent=True) from error
        except OSError as error:
            silent = error.errno in NOT_ACCEPTED
            raise WorkerLostError(_reason(error), silent=silent, dead=not silent) from error
        except httptools.HttpParserError as error:
            raise WorkerLostError(f"it does not speak HTTP: {error}") from error
        if answer.status not in (OK, ACCEPTED):
            raise WorkerLostError(f"it answered {answer.status} to {target}")
        return bytes(answer.body)


@dataclass
class _Report:
    """An answer that is short."""

    status: int = 0
    body: bytearray = field(default_factory=bytearray)

    def begin(self, status: int) -> None:
        self.status = status

    def take(self, part: bytes) -> None:
        self.body += part


@dataclass
class _Synthesis:
    """What has come of an utterance."""

    accepted: bool = False
    _decoder: FrameDecoder = field(default_factory=FrameDecoder)
    _pcm: list[bytes] = field(default_factory=list)
    _closing: EndOfUtterance | UtteranceError | None = None
    _refusal: bytes = b""

    def begin(self, status: int) -> None:
        self.accepted = status == OK

    def take(self, part: bytes) -> None:
        if not self.accepted:
            self._refusal += part
            return
        for kind, payload in self._decoder.feed(part):
            if kind is FrameKind.PCM:
                self._pcm.append(payload)
            else:
                message = EndOfUtterance if kind is FrameKind.END else UtteranceError
                self._closing = message.model_validate_json(payload)

    def whole(self) -> Spoken:
        """The utterance, now that the body has ended; else why there is none."""
        if not self.accepted:
            raise _refused(UtteranceError.model_validate_json(self._refusal))
        match self._closing:
            case EndOfUtterance() as end:
                pcm = self._pcm[0] if len(self._pcm) == 1 else b"".join(self._pcm)
                if len(pcm) != end.samples * SAMPLE_BYTES:
                    raise WorkerLostError(
                        f"it sent {len(pcm)} bytes and says it made {end.samples} samples", accepted=True
                    )
                return Spoken(pcm, end)
            case UtteranceError() as error:
                raise _refused(error)
        raise WorkerLostError("the audio broke off", accepted=True)


def _refused(error: UtteranceError) -> WorkerFullError | UtteranceRefusedError:
    return WorkerFullError(error.message) if error.code in ("full", "not_ready") else UtteranceRefusedError(error)


def _reason(error: OSError) -> str:
    return str(error) or type(error).__name__
