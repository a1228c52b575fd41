"""The client of one worker: the contract over HTTP on its Unix socket. Transport errors are translated here only."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from pathlib import Path

import httptools
from pydantic import ValidationError

from balancer.fleet.running_clock import running_timeout
from balancer.fleet.unix_http import UnixHttpClient
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

QUEUE_FULL_ERRNOS = (errno.EAGAIN, errno.ENOTCONN)
"""Errors of connecting to a socket whose process does not accept and whose queue is full; which one depends on the
event loop."""

SHORTAGE_ERRNOS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""Errors of connecting that say that this process is short of descriptors or memory, and nothing of the worker."""


class WorkerLostError(Exception):
    """The worker did not answer completely.

    `dead`: no process listens on the socket. `unresponsive`: a process listens and does not answer. `accepted`: the
    worker had begun the utterance. `unknown`: the worker could not even be asked, by the fault of this process.
    """

    def __init__(
        self,
        reason: str,
        *,
        dead: bool = False,
        unresponsive: bool = False,
        accepted: bool = False,
        unknown: bool = False,
    ) -> None:
        super().__init__(reason)
        self.unknown = unknown
        self.dead = dead
        self.unresponsive = unresponsive
        self.accepted = accepted


class WorkerFullError(Exception):
    """The worker has no free slot, is not ready, or could not be connected to for want of descriptors here.

    The utterance is not at fault.
    """


class UtteranceRefusedError(Exception):
    """The worker refused the utterance, or its engine failed on it: another worker would do the same."""

    def __init__(self, error: UtteranceError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(frozen=True)
class SynthesisResult:
    """A complete utterance. The worker's client sets the first two fields, the dispatcher the others."""

    pcm: bytes
    """Signed 16-bit little-endian mono at the engine's sample rate."""
    compute_seconds: float
    """Seconds of work that the worker reports."""
    queue_seconds: float = 0.0
    """Time in the queue, over all attempts."""
    attempts: int = 1
    worker: int | None = None
    """Index of the worker."""

    @property
    def samples(self) -> int:
        """Number of samples in `pcm`."""
        return len(self.pcm) // SAMPLE_BYTES


class WorkerClient:
    """HTTP client of the worker whose socket is `path`.

    `state_timeout` (seconds) limits every request but synthesis, which is limited by the attempt.
    """

    def __init__(self, path: Path, *, state_timeout: float) -> None:
        self._http = UnixHttpClient(path)
        self._state_timeout = state_timeout

    async def state(self) -> WorkerState:
        """The worker's state. Raises WorkerLostError."""
        body = await self._request("GET", "/state")
        try:
            return WorkerState.model_validate_json(body)
        except ValidationError as error:
            raise WorkerLostError(f"its state does not match this version: {error}") from error

    async def drain(self) -> None:
        """Ask the worker to finish its utterances and exit. Raises WorkerLostError."""
        await self._request("POST", "/drain")

    async def synthesize(self, utterance: Utterance) -> SynthesisResult:
        """Synthesize the utterance. Cancelling the call closes the connection, which cancels it in the worker.

        Raises WorkerLostError, WorkerFullError, UtteranceRefusedError.
        """
        response = _SynthesisResponse()
        try:
            await self._http.request("POST", "/synthesize", utterance.model_dump_json().encode(), response)
            return response.result()
        except OSError as error:
            if error.errno in SHORTAGE_ERRNOS:
                raise WorkerFullError(_message(error)) from error
            raise WorkerLostError(_message(error), dead=True, accepted=response.accepted) from error
        except (httptools.HttpParserError, FramingError, ValidationError) as error:
            raise WorkerLostError(f"its answer violates the contract: {error}", accepted=response.accepted) from error

    async def close(self) -> None:
        """Close every connection; requests under way fail with WorkerLostError."""
        self._http.close()

    async def _request(self, method: str, target: str) -> bytes:
        response = _ShortResponse()
        try:
            async with running_timeout(self._state_timeout):
                await self._http.request(method, target, b"", response)
        except TimeoutError as error:
            raise WorkerLostError(f"no answer within {self._state_timeout} s", unresponsive=True) from error
        except OSError as error:
            if error.errno in SHORTAGE_ERRNOS:
                raise WorkerLostError(_message(error), unknown=True) from error
            unresponsive = error.errno in QUEUE_FULL_ERRNOS
            raise WorkerLostError(_message(error), unresponsive=unresponsive, dead=not unresponsive) from error
        except httptools.HttpParserError as error:
            raise WorkerLostError(f"its answer is not HTTP: {error}") from error
        if response.status not in (OK, ACCEPTED):
            raise WorkerLostError(f"it answered {response.status} to {target}")
        return bytes(response.body)


@dataclass
class _ShortResponse:
    """Status and body of a response, kept in memory."""

    status: int = 0
    body: bytearray = field(default_factory=bytearray)

    def on_status(self, status: int) -> None:
        self.status = status

    def on_data(self, data: bytes) -> None:
        self.body += data


@dataclass
class _SynthesisResponse:
    """The response to `POST /synthesize`, as far as it has arrived."""

    accepted: bool = False
    _decoder: FrameDecoder = field(default_factory=FrameDecoder)
    _pcm: list[bytes] = field(default_factory=list)
    _closing: EndOfUtterance | UtteranceError | None = None
    _refusal: bytes = b""

    def on_status(self, status: int) -> None:
        self.accepted = status == OK

    def on_data(self, data: bytes) -> None:
        if not self.accepted:
            self._refusal += data
            return
        for kind, payload in self._decoder.feed(data):
            if kind is FrameKind.PCM:
                self._pcm.append(payload)
            else:
                message = EndOfUtterance if kind is FrameKind.END else UtteranceError
                self._closing = message.model_validate_json(payload)

    def result(self) -> SynthesisResult:
        """The complete utterance, once the body has ended; otherwise raises the reason why there is none."""
        if not self.accepted:
            raise _refused(UtteranceError.model_validate_json(self._refusal))
        match self._closing:
            case EndOfUtterance() as end:
                pcm = self._pcm[0] if len(self._pcm) == 1 else b"".join(self._pcm)
                if len(pcm) != end.samples * SAMPLE_BYTES:
                    raise WorkerLostError(
                        f"it sent {len(pcm)} bytes of audio but reported {end.samples} samples", accepted=True
                    )
                return SynthesisResult(pcm, end.compute_seconds)
            case UtteranceError() as error:
                raise _refused(error)
        raise WorkerLostError("the audio ended without its closing frame", accepted=True)


def _refused(error: UtteranceError) -> WorkerFullError | UtteranceRefusedError:
    return WorkerFullError(error.message) if error.code in ("full", "not_ready") else UtteranceRefusedError(error)


def _message(error: OSError) -> str:
    return str(error) or type(error).__name__
