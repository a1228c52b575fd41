"""The client of one worker: the contract over HTTP on its Unix socket. Transport errors are translated here only."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httptools
from pydantic import ValidationError

from balancer.fleet.running_clock import RunningTimeout
from balancer.fleet.unix_http import UnixHttpClient
from worker.contract import (
    MAX_MESSAGE_BYTES,
    MAX_SAMPLE_RATE,
    MAX_STATE_BYTES,
    SAMPLE_BYTES,
    WORKER_FAULTS,
    EndOfUtterance,
    FrameDecoder,
    FrameKind,
    FramingError,
    Utterance,
    UtteranceError,
    WorkerState,
    max_pcm_bytes,
)

OK, ACCEPTED = 200, 202

QUEUE_FULL_ERRNOS = (errno.EAGAIN, errno.ENOTCONN)
"""Errors of connecting to a socket whose process does not accept and whose queue is full; which one depends on the
event loop."""

SHORTAGE_ERRNOS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""Errors of connecting that say that this process is short of descriptors or memory, and nothing of the worker."""


class WorkerLostError(Exception):
    """The worker did not answer completely.

    `dead`: no process listens on the socket. `unresponsive`: a process listens and does not answer. `odd`: its answer
    violates the contract. `accepted`: the worker had begun the utterance. `unknown`: this process could not even ask.
    """

    def __init__(
        self,
        reason: str,
        *,
        dead: bool = False,
        unresponsive: bool = False,
        odd: bool = False,
        accepted: bool = False,
        unknown: bool = False,
    ) -> None:
        super().__init__(reason)
        self.unknown = unknown
        self.dead = dead
        self.unresponsive = unresponsive
        self.odd = odd
        self.accepted = accepted


class WorkerFullError(Exception):
    """The worker has no free slot, is not ready, or could not be connected to for want of descriptors here.

    The utterance is not at fault.
    """


class ContractError(ValueError):
    """An answer of the worker violates the contract."""


class UtteranceRefusedError(Exception):
    """The worker refused the utterance, or its engine failed on it.

    Another worker would do the same, unless the error's code is one of WORKER_FAULTS.
    """

    def __init__(self, error: UtteranceError) -> None:
        super().__init__(error.message)
        self.error = error

    @property
    def worker_fault(self) -> bool:
        """Whether the worker may be at fault, and another may succeed."""
        return self.error.code in WORKER_FAULTS


@dataclass(frozen=True)
class SynthesisResult:
    """A complete utterance. The dispatcher sets what concerns queue and attempts, the worker's client the rest."""

    pcm: bytes
    """Signed 16-bit little-endian mono at the engine's sample rate."""
    compute_seconds: float
    """Seconds of work that the worker reports."""
    queue_seconds: float = 0.0
    """Time in the queue, over all attempts."""
    attempts: int = 1
    worker: int | None = None
    """Index of the worker."""
    retakes: int = 0
    """Takes that the worker discarded before this one."""
    flaw: str | None = None
    """The flaw of the audio, as far as the worker can tell."""

    @property
    def samples(self) -> int:
        """Number of samples in `pcm`."""
        return len(self.pcm) // SAMPLE_BYTES


class WorkerClient:
    """HTTP client of the worker whose socket is `path`.

    `state_timeout` (seconds) limits every request but synthesis, which is limited by the attempt. `on_unrequested` is
    called when the worker sends what no request asked for.
    """

    def __init__(self, path: Path, *, state_timeout: float) -> None:
        self._http = UnixHttpClient(path, self._refuse_unrequested)
        self._state_timeout = state_timeout
        self.on_unrequested: Callable[[], None] = lambda: None

    async def state(self) -> WorkerState:
        """The worker's state. Raises WorkerLostError."""
        body = await self._request("GET", "/state")
        try:
            return WorkerState.model_validate_json(body)
        except ValidationError as error:
            raise WorkerLostError(f"its state does not match this version: {_summary(error)}", odd=True) from error

    async def drain(self) -> None:
        """Ask the worker to finish its utterances and exit. Raises WorkerLostError."""
        await self._request("POST", "/drain")

    async def synthesize(
        self,
        utterance: Utterance,
        *,
        sample_rate: int = MAX_SAMPLE_RATE,
        on_pcm: Callable[[bytes], None] | None = None,
    ) -> SynthesisResult:
        """Synthesize the utterance. Cancelling the call closes the connection, which cancels it in the worker.

        `sample_rate` is the engine's, in Hz: with the text's length it bounds the audio. `on_pcm` is called with each
        piece of audio as it comes, whole samples all of them.

        Raises WorkerLostError, WorkerFullError, UtteranceRefusedError, and as `on_pcm`.
        """
        response = _SynthesisResponse(utterance.id, max_pcm_bytes(len(utterance.text), sample_rate), on_pcm)
        try:
            await self._http.request("POST", "/synthesize", utterance.model_dump_json().encode(), response)
            return response.result()
        except OSError as error:
            if error.errno in SHORTAGE_ERRNOS:
                raise WorkerFullError(_message(error)) from error
            raise WorkerLostError(_message(error), dead=True, accepted=response.accepted) from error
        except (httptools.HttpParserError, FramingError, ContractError, ValidationError) as error:
            reason = _summary(error) if isinstance(error, ValidationError) else str(error)
            raise WorkerLostError(
                f"its answer violates the contract: {reason}", odd=True, accepted=response.accepted
            ) from error

    async def close(self) -> None:
        """Close every connection; requests under way fail with WorkerLostError."""
        self._http.close()

    def _refuse_unrequested(self) -> None:
        self.on_unrequested()

    async def _request(self, method: str, target: str) -> bytes:
        response = _ShortResponse()
        try:
            async with RunningTimeout(self._state_timeout):
                await self._http.request(method, target, b"", response)
        except TimeoutError as error:
            raise WorkerLostError(f"no answer within {self._state_timeout} s", unresponsive=True) from error
        except OSError as error:
            if error.errno in SHORTAGE_ERRNOS:
                raise WorkerLostError(_message(error), unknown=True) from error
            unresponsive = error.errno in QUEUE_FULL_ERRNOS
            raise WorkerLostError(_message(error), unresponsive=unresponsive, dead=not unresponsive) from error
        except (httptools.HttpParserError, ContractError) as error:
            raise WorkerLostError(f"its answer to {target} violates the contract: {error}", odd=True) from error
        if response.status not in (OK, ACCEPTED):
            raise WorkerLostError(f"it answered {response.status} to {target}", odd=True)
        return bytes(response.body)


@dataclass
class _ShortResponse:
    """Status and body of a response, of at most MAX_STATE_BYTES."""

    status: int = 0
    body: bytearray = field(default_factory=bytearray)

    def on_status(self, status: int) -> None:
        self.status = status

    def on_data(self, data: bytes) -> None:
        if len(self.body) + len(data) > MAX_STATE_BYTES:
            raise ContractError(f"it is longer than {MAX_STATE_BYTES} bytes")
        self.body += data


@dataclass
class _SynthesisResponse:
    """The response to `POST /synthesize`, as far as it has arrived."""

    utterance_id: str
    max_pcm_bytes: int
    on_pcm: Callable[[bytes], None] | None
    accepted: bool = False
    _decoder: FrameDecoder = field(default_factory=FrameDecoder)
    _pcm: bytes | bytearray = b""
    """The only frame of audio, which is not copied again; or the audio of several."""
    _closing: EndOfUtterance | UtteranceError | None = None
    _refusal: bytes = b""

    def on_status(self, status: int) -> None:
        self.accepted = status == OK

    def on_data(self, data: bytes) -> None:
        if not self.accepted:
            if len(self._refusal) + len(data) > MAX_MESSAGE_BYTES:
                raise ContractError(f"its refusal is longer than {MAX_MESSAGE_BYTES} bytes")
            self._refusal += data
            return
        for kind, payload in self._decoder.feed(data):
            if self._closing is not None:
                raise ContractError("it goes on after its closing frame")
            if kind is FrameKind.PCM:
                self._add(payload)
            else:
                message = EndOfUtterance if kind is FrameKind.END else UtteranceError
                self._close(message.model_validate_json(payload))

    def _add(self, pcm: bytes) -> None:
        if not pcm:
            raise ContractError("a frame without audio, of which there may be any number")
        if len(self._pcm) + len(pcm) > self.max_pcm_bytes:
            raise ContractError(f"it is longer than any speech of the text, {self.max_pcm_bytes} bytes")
        if self.on_pcm is not None:
            if len(pcm) % SAMPLE_BYTES:
                raise ContractError("a frame of audio ends within a sample")
            self.on_pcm(pcm)
        if not self._pcm:
            self._pcm = pcm
            return
        if isinstance(self._pcm, bytes):
            self._pcm = bytearray(self._pcm)
        self._pcm += pcm

    def _close(self, closing: EndOfUtterance | UtteranceError) -> None:
        if closing.id != self.utterance_id:
            raise ContractError(f"it is the answer to another utterance, {closing.id[:100]!r}")
        self._closing = closing

    def result(self) -> SynthesisResult:
        """The complete utterance, once the body has ended; otherwise raises the reason why there is none."""
        if not self.accepted:
            raise _refused(UtteranceError.model_validate_json(self._refusal))
        match self._closing:
            case EndOfUtterance() as end:
                pcm = bytes(self._pcm)
                if len(pcm) != end.samples * SAMPLE_BYTES:
                    raise WorkerLostError(
                        f"it sent {len(pcm)} bytes of audio but reported {end.samples} samples",
                        odd=True,
                        accepted=True,
                    )
                return SynthesisResult(pcm, end.compute_seconds, retakes=end.retakes, flaw=end.flaw)
            case UtteranceError() as error:
                raise _refused(error)
        raise WorkerLostError("the audio ended without its closing frame", odd=True, accepted=True)


def _refused(error: UtteranceError) -> WorkerFullError | UtteranceRefusedError:
    return WorkerFullError(error.message) if error.code in ("full", "not_ready") else UtteranceRefusedError(error)


def _summary(error: ValidationError) -> str:
    """The first fault, without the worker's values, which may be long."""
    fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
    return f"{'.'.join(map(str, fault['loc']))[:100] or 'it'}: {fault['msg'][:200]}"


def _message(error: OSError) -> str:
    return str(error) or type(error).__name__
