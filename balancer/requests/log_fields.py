"""Fields of a request's log line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class RequestLogFields:
    """Fields that a request adds to its log line, set while it is processed. A field that is None is omitted."""

    characters: int | None = None
    """Length of the text."""
    voice: str | None = None
    caller: str | None = None
    """Name of the API key, or the client's address."""
    text: str | None = None
    """Only where the operator has texts logged."""
    # Of an error that was answered.
    code: str | None = None
    param: str | None = None
    """The invalid field."""
    # Of the synthesis; not set if the audio came from the cache or from another request.
    worker: int | None = None
    """Index of the worker."""
    attempts: int | None = None
    queue_seconds: float | None = None
    """Seconds in the queue."""
    compute_seconds: float | None = None
    """Seconds of work that the worker reports."""
    retakes: int | None = None
    """Takes that workers discarded, if any."""
    flaws: list[str] | None = None
    """The flaws of the audio, if any."""
    cache: str | None = None
    """Source of the audio: `hit`, `miss` or `coalesced`."""
    audio_seconds: float | None = None
    streamed: bool | None = None
    """Whether the audio was sent while it was made."""

    def as_dict(self) -> dict[str, Any]:
        """The fields that are set, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}
