"""The messages between balancer and worker: utterances, worker states and frames of audio.

The balancer imports this module, too, so it loads no model and no numerical library.

`POST /synthesize` is answered with a stream of frames, each a one-byte kind, a four-byte big-endian length and that
many bytes of payload. PCM frames are sent as the audio is made; one END or ERROR frame, which names the utterance,
closes it. A body without its closing frame is incomplete because the worker died, even if the HTTP response is
complete.

Every part of an answer is bounded, so that a worker that misbehaves costs the balancer no memory: frames, messages, the
audio of one utterance (`max_pcm_bytes`) and the state.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

SAMPLE_BYTES = 2
"""Bytes per sample. PCM in frames is signed 16-bit little-endian mono."""

MAX_SAMPLE_RATE = 48_000
"""In Hz."""

MAX_PCM_FRAME_BYTES = 2**20
"""Maximum payload of a PCM frame; longer chunks of audio are sent as several frames."""
MAX_MESSAGE_BYTES = 2**16
"""Maximum payload of the other frames, and maximum body of a refusal."""
MAX_SLOTS = 1024
"""Maximum slots of a worker: more is a mistake, and would draw every utterance to it."""
MAX_STATE_BYTES = 2**20
"""Maximum body of the answer to `GET /state`."""
MAX_VOICES_REPORTED = 1000
"""Prepared voices that a state names."""

MAX_SECONDS_PER_CHARACTER = 1.0
"""Audio for one character, at most. Digits are the longest: up to three quarters of a second each."""
MAX_EXTRA_SECONDS = 60.0
"""Audio beyond that: pauses, and models that go on for a while after a short text."""

ParameterValue = float | int | str | bool
Count = Annotated[int, Field(ge=0, lt=2**63)]
Amount = Annotated[float, Field(ge=0)]
Word = Annotated[str, Field(max_length=5000)]


def max_pcm_bytes(characters: int, sample_rate: int) -> int:
    """Maximum PCM of a text with that many characters, in bytes: what exceeds it is no speech."""
    seconds = MAX_EXTRA_SECONDS + MAX_SECONDS_PER_CHARACTER * characters
    return int(seconds * sample_rate) * SAMPLE_BYTES


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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
    """Maximum number of tokens that the engine may generate; None: the engine decides. An utterance with a budget of
    its own measures the engine: its audio is neither judged nor trimmed."""
    time_limit: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which nobody waits for the audio: no further take is begun that would hardly end by then."""
    playout_deadline: Annotated[float, Field(ge=0)] | None = None
    """Seconds from its arrival after which a listener, who plays the audio while it is made, has nothing to play; 0 if
    nothing is heard yet. None: nobody listens before the audio is complete."""
    first_piece_tokens: Annotated[int, Field(ge=1)] | None = None
    """Speech tokens after which an engine that can hands out a first piece of the audio, before it has the rest. It
    decides the samples, so a retry keeps it. None: the audio is made in one go."""
    further_pieces: bool = False
    """Whether further pieces follow the first one, each several times as long, before the engine has the rest. It
    decides the samples, too."""
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

    A newer worker may add fields, which are ignored: a rolling restart replaces the balancer last. Numbers are finite
    and within ranges that every consumer can handle.
    """

    model_config = ConfigDict(extra="ignore")

    index: Count
    pid: Annotated[int, Field(gt=0, lt=2**31)]
    phase: Phase
    reason: str | None = None
    """Why the phase is FAILED, and what to do about it."""
    engine: Word
    model: Word
    sample_rate: Annotated[int, Field(ge=8000, le=MAX_SAMPLE_RATE)]
    cores: tuple[Count, ...]
    """CPU numbers the process may run on."""
    threads: Count
    slots: Annotated[int, Field(ge=1, le=MAX_SLOTS)]
    """Number of utterances that the worker can run at once."""
    in_flight: tuple[str, ...]
    """Ids of the running utterances."""
    done: Count
    """Number of utterances completed since the start."""
    progress: Count
    """Grows with every token, block or piece of audio made. A busy worker hangs if it stops growing."""
    speed: Amount | None
    """Average number of audio seconds made per second of work; None before the first utterance."""
    stage_seconds: dict[Word, Amount] = {}
    """Seconds that the model's thread has spent in each stage of synthesis; empty if the engine does not measure."""
    retakes: dict[Word, Count] = {}
    """Takes that were discarded since the start, by what was wrong with them."""
    flawed: dict[Word, Count] = {}
    """Utterances whose audio is flawed after all takes, by what is wrong with it."""
    voices_prepared: tuple[str, ...]
    resident_bytes: Count
    shared_bytes: Count = 0
    """The part of `resident_bytes` that is mapped from files: the workers of a host share one copy of it."""
    cpu_seconds: Amount
    started_at: Amount
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

    id: str
    """Id of the utterance, so that a late answer is not taken for that of another utterance."""
    samples: Count
    compute_seconds: Amount
    retakes: Count = 0
    """Takes that were discarded before the audio's."""
    flaw: Annotated[str, Field(max_length=100)] | None = None
    """The flaw of the audio, as far as the engine can tell, such as `cut`."""


class UtteranceError(_Message):
    """The closing frame of an utterance that the engine failed on, and the body of a refusal."""

    model_config = ConfigDict(extra="ignore")

    id: str = ""
    """Id of the utterance; empty in a refusal."""
    code: str
    """`unspeakable`: the engine cannot pronounce any of the text. `invalid`: the engine does not have this voice or
    parameter. `full`: no free slot. `not_ready`: the worker's phase is not READY. `internal`: a defect.
    `exhausted`: the worker lacks memory, or its device has failed. The worker's log has the traceback of the last two,
    and another worker may succeed."""
    message: str


WORKER_FAULTS = ("internal", "exhausted")
"""Codes of errors that another worker may not have."""


_HEADER = struct.Struct(">cI")


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
        if self._buffer:
            self._buffer += data
            frames, end = _frames_in(self._buffer)
            del self._buffer[:end]
        else:  # frames that arrive whole are copied once, into their payloads
            frames, end = _frames_in(data)
            self._buffer += data[end:]
        return frames


def _frames_in(data: bytes | bytearray) -> tuple[list[tuple[FrameKind, bytes]], int]:
    """The complete frames at the beginning of `data`, and the position behind them. Raises FramingError."""
    frames = []
    start = 0
    with memoryview(data) as view:
        while len(view) - start >= _HEADER.size:
            code, length = _HEADER.unpack_from(view, start)
            kind = _KINDS.get(code)
            if kind is None or length > (MAX_PCM_FRAME_BYTES if kind is FrameKind.PCM else MAX_MESSAGE_BYTES):
                raise FramingError(f"not a frame: kind {code!r}, length {length}")
            end = start + _HEADER.size + length
            if len(view) < end:
                break
            frames.append((kind, bytes(view[start + _HEADER.size : end])))
            start = end
    return frames, start


_KINDS = {kind.value.encode(): kind for kind in FrameKind}
