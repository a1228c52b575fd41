"""The speech request that the bodies of all API surfaces become, and the context that it came in."""

from __future__ import annotations

from dataclasses import dataclass, field

from balancer.audio.formats import AudioFormat
from balancer.requests.cache_control import CacheUse
from balancer.requests.log_fields import RequestLogFields
from balancer.scheduling.priority import Priority
from balancer.text.spoken_text import Pause
from voices.registry import Voice
from worker.contract import ParameterValue

DEFAULT_LANGUAGE = "en"
"""Language of a text whose request and voice name none, and of engines without a choice of languages."""


@dataclass(frozen=True)
class SpeechRequest:
    """A validated request for speech. `parameters` are those of the engine, `speed` is the tempo from 0.25 to 4."""

    text: str
    """As it is to be said: prepared by the text front end."""
    voice: Voice
    parameters: dict[str, ParameterValue]
    seed: int
    format: AudioFormat
    speed: float
    seeded: bool = True
    """Whether the client chose the seed."""
    priority: Priority = Priority.INTERACTIVE
    deadline_ms: float | None = None
    """Time limit in milliseconds from the request's arrival; None: no limit."""
    language: str = DEFAULT_LANGUAGE
    """Of the text."""
    pauses: tuple[Pause, ...] = ()
    """Silences that the text asks for."""
    characters: int = field(default=0, compare=False)
    """Length of the text as the client sent it, which rate limits count."""
    text_field: str = field(default="text", compare=False)
    """Name of the body's field with the text, for error messages."""


@dataclass(frozen=True)
class RequestContext:
    """The caller of a speech request, its arrival and time limit. `arrived` is on the event loop's clock."""

    request_id: str
    caller: str
    """Name of the API key, or the client's address, for the log."""
    caller_id: str
    """Identity of the API key, or the client's address: callers take turns, and have shares, under it."""
    arrived: float
    deadline_ms: float | None = None
    """Time limit of the header X-Deadline-Ms, in milliseconds from the arrival; None: no limit."""
    log_fields: RequestLogFields = field(default_factory=RequestLogFields)
    cache: CacheUse = field(default_factory=CacheUse)
    waits_indefinitely: bool = False
    """Whether the server's timeout does not apply, because no client waits for the response."""


def time_limit(request: SpeechRequest, context: RequestContext) -> float | None:
    """The client's time limit in seconds from the request's arrival: the shorter of body and header; None: no limit."""
    limits = [limit for limit in (request.deadline_ms, context.deadline_ms) if limit is not None]
    return min(limits) / 1000 if limits else None
