"""What crosses the socket between balancer and worker: utterances, states and frames of audio.

With `cards` and `checkpoints`, all of this package that the balancer imports: none of them loads a model or a
numerical library.

A synthesis answers a stream of frames, each a one-byte kind, a four-byte big-endian length and that many bytes.
PCM frames come as they are made; one END or ERROR frame closes the utterance. A body that stops before its
closing frame means that the worker died, however well the HTTP layer says it ended.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

SAMPLE_BYTES = 2
"""Bytes a sample: PCM on the wire is signed 16-bit little-endian mono."""

ParameterValue = float | int | str | bool


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Utterance(_Message):
    """One piece of text for one worker to speak in one go."""

    id: str
    text: str
    voice: str
    """Canonical voice name, as the registry has it."""
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    """Always set: an utterance that is run again after a worker's death must sound the same."""
    parameters: dict[str, ParameterValue] = {}
    token_budget: int | None = None
    """Most tokens a token-making engine may generate; None leaves it to the engine."""
    request_id: str = ""
    """Of the client's request, for the logs of both sides."""


class Phase(StrEnum):
    """The life of a worker as it sees itself."""

    STARTING = "starting"  # importing libraries, loading the model
    WARMING = "warming"  # first whole synthesis, not counted, so that nothing compiles under a client
    READY = "ready"  # takes utterances
    DRAINING = "draining"  # finishes what is in flight, takes no more, then ends
    FAILED = "failed"  # the model cannot load, or crashed at every start; `reason` says why and what to do


class WorkerState(_Message):
    """The answer to `GET /state`. A newer worker may tell more: in a rolling restart, the balancer comes last."""

    model_config = ConfigDict(extra="ignore")

    index: int
    pid: int
    phase: Phase
    reason: str | None = None
    """Why the phase is FAILED."""
    engine: str
    model: str
    sample_rate: int
    cores: tuple[int, ...]
    """CPU numbers the process may run on."""
    threads: int
    slots: int
    """Utterances that the worker can run at once."""
    in_flight: tuple[str, ...]
    """Ids of the utterances under way."""
    done: int
    """Utterances finished whole since the start."""
    progress: int
    """Grows with every token, block or piece of audio made: a busy worker whose progress stands still hangs."""
    speed: float | None
    """Audio seconds made per second of work, averaged; None before the first utterance."""
    stage_seconds: dict[str, float] = {}
    """What the model's thread has spent so far, by stage of the work; empty where the engine does not count."""
    voices_prepared: tuple[str, ...]
    resident_bytes: int
    shared_bytes: int = 0
    """Of the resident memory, what is mapped from files: workers of one host share one copy of it."""
    cpu_seconds: float
    started_at: float
    """Unix time."""

    @property
    def ready(self) -> bool:
        """Whether utterances are accepted (a full worker is ready, too)."""
        return self.phase is Phase.READY


class FrameKind(StrEnum):
    """What a frame carries."""

    PCM = "P"  # samples
    END = "E"  # the utterance is whole; an EndOfUtterance
    ERROR = "X"  # the utterance failed in the engine; an UtteranceError


class EndOfUtterance(_Message):
    """The closing frame of a whole utterance. A newer worker may tell more."""

    model_config = ConfigDict(extra="ignore")

    samples: int
    compute_seconds: float


class UtteranceError(_Message):
    """The closing frame of an utterance that the engine could not speak, and the body of a refusal."""

    code: str
    """`unspeakable`: the text has nothing this engine can say. `invalid`: voice or parameters do not fit the
    engine. `full`: no free slot. `not_ready`: no model yet. `internal`: a defect; the worker's log has the trace."""
    message: str


_HEADER = struct.Struct(">cI")
_FRAME_LIMIT = 64 * 2**20


class FramingError(ValueError):
    """The bytes are not frames of this contract."""


def encode_frame(kind: FrameKind, payload: bytes) -> bytes:
    """One frame, ready to send."""
    return _HEADER.pack(kind.value.encode(), len(payload)) + payload


@dataclass
class FrameDecoder:
    """Turns a byte stream, cut anywhere, back into frames."""

    _buffer: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> list[tuple[FrameKind, bytes]]:
        """Frames completed by `data`, in order. Raises FramingError on bytes that cannot be a frame."""
        self._buffer += data
        frames = []
        start = 0
        while len(self._buffer) - start >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._buffer, start)
            if kind not in _KINDS or length > _FRAME_LIMIT:
                raise FramingError(f"not a frame: kind {kind!r}, length {length}")
            end = start + _HEADER.size + length
            if len(self._buffer) < end:
                break
            frames.append((_KINDS[kind], bytes(self._buffer[start + _HEADER.size : end])))
            start = end
        del self._buffer[:start]
        return frames


_KINDS = {kind.value.encode(): kind for kind in FrameKind}


async def frames(chunks: AsyncIterator[bytes]) -> AsyncIterator[tuple[FrameKind, bytes]]:
    """Frames of a response body. It ends where the body ends: the caller checks for the closing frame."""
    decoder = FrameDecoder()
    async for chunk in chunks:
        for frame in decoder.feed(chunk):
            yield frame
