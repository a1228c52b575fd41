"""One worker's socket: the contract spoken over httpx, whose errors are translated here and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from pydantic import ValidationError

from worker.contract import EndOfUtterance, FrameKind, FramingError, Utterance, UtteranceError, WorkerState, frames

_STATE = httpx.URL("http://worker/state")
_SYNTHESIZE = httpx.URL("http://worker/synthesize")


class WorkerLostError(Exception):
    """The worker did not answer to the end.

    `dead`: there is nobody behind the socket, rather than nobody in time. `accepted`: it had begun the utterance.
    """

    def __init__(self, reason: str, *, dead: bool = True, accepted: bool = False) -> None:
        super().__init__(reason)
        self.dead = dead
        self.accepted = accepted


class WorkerFullError(Exception):
    """The worker has no free slot, or is not ready: no fault of the utterance."""


class UtteranceRefusedError(Exception):
    """The worker will not, or could not, speak this utterance: trying elsewhere would end the same."""

    def __init__(self, error: UtteranceError) -> None:
        super().__init__(error.message)
        self.error = error


class Connection:
    """A client of the worker at `path`. Synthesis has no time limit here: the dispatcher has one for the whole."""

    def __init__(self, path: Path, *, state_timeout: float) -> None:
        # The transport alone: a client around it adds redirects, cookies and 0.25 ms to each utterance.
        self._transport = httpx.AsyncHTTPTransport(uds=str(path), limits=httpx.Limits(max_connections=None))
        self._state_timeout = state_timeout
        self._closed = False

    async def state(self) -> WorkerState:
        """The worker's state. Raises WorkerLostError."""
        try:
            async with asyncio.timeout(self._state_timeout), self._ask(httpx.Request("GET", _STATE)) as answer:
                return WorkerState.model_validate_json(await answer.aread())
        except TimeoutError as error:
            raise WorkerLostError(f"no answer within {self._state_timeout} s", dead=False) from error
        except httpx.HTTPError as error:
            raise WorkerLostError(str(error) or type(error).__name__) from error
        except ValidationError as error:
            raise WorkerLostError(f"its state is not of this version: {error}", dead=False) from error

    async def synthesize(self, utterance: Utterance) -> AsyncGenerator[bytes, None]:
        """PCM as the worker makes it; the iterator ends only after a whole utterance.

        Closing it early cancels the utterance. Raises WorkerLostError, WorkerFullError, UtteranceRefusedError.
        """
        accepted = False
        closing: EndOfUtterance | UtteranceError | None = None
        try:
            async with self._ask(httpx.Request("POST", _SYNTHESIZE, content=utterance.model_dump_json())) as answer:
                if answer.status_code != httpx.codes.OK:
                    _refused(UtteranceError.model_validate_json(await answer.aread()))
                accepted = True
                # Reads on behind the closing frame to the body's end, so that the connection can be used again.
                async for kind, payload in frames(answer.aiter_raw()):
                    if kind is FrameKind.PCM:
                        yield payload
                    else:
                        closing = _closing(kind, payload)
        except httpx.HTTPError as error:
            if closing is None:
                raise WorkerLostError(str(error) or type(error).__name__, accepted=accepted) from error
        except (FramingError, ValidationError) as error:
            raise WorkerLostError(f"it does not speak the contract: {error}", accepted=accepted) from error
        match closing:
            case None:
                raise WorkerLostError("the audio broke off", accepted=True)
            case UtteranceError():
                _refused(closing)

    async def close(self) -> None:
        """Close every connection; what is under way on them breaks off."""
        self._closed = True
        await self._transport.aclose()

    @asynccontextmanager
    async def _ask(self, request: httpx.Request) -> AsyncIterator[httpx.Response]:
        if self._closed:
            raise httpx.ConnectError("the connection to this process is closed", request=request)
        answer = await self._transport.handle_async_request(request)
        try:
            yield answer
        finally:
            await answer.aclose()
            if self._closed:
                # It was being dialled as the others were closed, so the transport does not know of it any more.
                await answer.extensions["network_stream"].aclose()


def _closing(kind: FrameKind, payload: bytes) -> EndOfUtterance | UtteranceError:
    message = EndOfUtterance if kind is FrameKind.END else UtteranceError
    return message.model_validate_json(payload)


def _refused(error: UtteranceError) -> None:
    if error.code in ("full", "not_ready"):
        raise WorkerFullError(error.message)
    raise UtteranceRefusedError(error)
