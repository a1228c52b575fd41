"""The messages between balancer and worker: utterances, worker states and frames of audio.

The balancer imports this module, too, so it loads no model and no numerical library.

`POST /synthesize` is answered with a stream of frames, each a one-byte kind, a four-byte big-endian length and that
many bytes of payload. PCM frames are sent as the audio is made; one END or ERROR frame closes the utterance. A body
without its closing frame is incomplete because the worker died, even if the HTTP response is complete.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

SAMPLE_BYTES = 2
"""Bytes per sample. PCM in frames is signed 16-bit little-endian mono."""

ParameterValue = float | int | str | bool


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Utterance(_Message):
    """A text that one worker synthesizes in one go."""

    id: str
    text: str
    voice: str
    """The canonical name of the voice, as in the registry."""
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    """Always set: an utterance that is retried after a worker's death must give the same audio."""
    parameters: dict[str, ParameterValue] = {}
    token_budget: int | None = None
    """Maximum number of tokens that the engine may generate; None: the engine decides."""
    request_id: str = ""
    """Id of the client's request, for the logs of balancer and worker."""


class Phase(StrEnum):
    """The phase of a worker, as it reports it itself."""

    STARTING = "starting"  # imports libraries and loads the model
    WARMING = "warming"  # runs a warm-up synthesis, so that nothing is compiled during a client's request
    READY = "ready"  # accepts utterances
    DRAINING = "draining"  # finishes the utterances in flight, accepts no more, then exits
    FAILED = "failed"  # the model cannot be loaded, or every start crashed; `reason` says why and what to do


class WorkerState(_Message):
    """The answer to `GET /state`.

    A newer worker may add fields, which are ignored: a rolling restart replaces the balancer last.
    """

    model_config = ConfigDict(extra="ignore")

    index: int
    pid: int
    phase: Phase
    reason: str | None = None
    """Why the phase is FAILED, and what to do about it."""
    engine: str
    model: str
    sample_rate: int
    cores: tuple[int, ...]
    """CPU numbers the process may run on."""
    threads: int
    slots: int
    """Number of utterances that the worker can run at once."""
    in_flight: tuple[str, ...]
    """Ids of the running utterances."""
    done: int
    """Number of utterances completed since the start."""
    progress: int
    """Grows with every token, block or piece of audio made. A busy worker hangs if it stops growing."""
    speed: float | None
    """Average number of audio seconds made per second of work; None before the first utterance."""
    stage_seconds: dict[str, float] = {}
    """Seconds that the model's thread has spent in each stage of synthesis; empty if the engine does not measure."""
    voices_prepared: tuple[str, ...]
    resident_bytes: int
    shared_bytes: int = 0
    """The part of `resident_bytes` that is mapped from files: the workers of a host share one copy of it."""
    cpu_seconds: float
    started_at: float
    """Unix time."""

    @property
    def ready(self) -> bool:
        """Whether the worker accepts utterances once a slot is free. A full worker is ready, too."""
        return self.phase is Phase.READY


class FrameKind(StrEnum):
    """The payload of a frame."""

    PCM = "P"  # audio
    END = "E"  # the utterance is complete; an EndOfUtterance
    ERROR = "X"  # the utterance failed in the engine; an UtteranceError


class EndOfUtterance(_Message):
    """The closing frame of a complete utterance. A newer worker may add fields, which are ignored."""

    model_config = ConfigDict(extra="ignore")

    samples: int
    compute_seconds: float


class UtteranceError(_Message):
    """The closing frame of an utterance that the engine failed on, and the body of a refusal."""

    code: str
    """`unspeakable`: the engine cannot pronounce any of the text. `invalid`: the engine does not have this voice or
    parameter. `full`: no free slot. `not_ready`: the worker's phase is not READY. `internal`: a defect; the worker's
    log has the traceback."""
    message: str


_HEADER = struct.Struct(">cI")
_FRAME_LIMIT = 64 * 2**20


class FramingError(ValueError):
    """The bytes are not a frame."""


def encode_frame(kind: FrameKind, payload: bytes) -> bytes:
    """A frame as bytes."""
    return _HEADER.pack(kind.value.encode(), len(payload)) + payload


@dataclass
class FrameDecoder:
    """Decodes frames from a byte stream that may be cut anywhere."""

    _buffer: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> list[tuple[FrameKind, bytes]]:
        """The frames that `data` completes, in order. Raises FramingError if the bytes cannot be a frame."""
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
