"""The one request that every surface's body becomes, and where it came from."""

from __future__ import annotations

from dataclasses import dataclass, field

from balancer.audio.formats import AudioFormat
from balancer.requests.cache_control import CacheUse
from balancer.requests.log_fields import RequestLogFields
from balancer.scheduling.priority import Priority
from voices.registry import Voice
from worker.contract import ParameterValue


@dataclass(frozen=True)
class SpeechRequest:
    """What every surface asks of the speech service. `seed` is always set, `parameters` are the engine's."""

    text: str
    voice: Voice
    parameters: dict[str, ParameterValue]
    seed: int
    format: AudioFormat
    speed: float
    seeded: bool = True
    """Whether the client chose the seed."""
    priority: Priority = Priority.INTERACTIVE
    deadline_ms: float | None = None
    """From the request's arrival."""
    text_field: str = field(default="text", compare=False)
    """What the client calls the text: errors name it so."""


@dataclass(frozen=True)
class RequestContext:
    """Who asks, and by when; `arrived` is on the event loop's clock."""

    request_id: str
    caller: str
    """API key or address: callers take turns."""
    arrived: float
    deadline_ms: float | None = None
    log_fields: RequestLogFields = field(default_factory=RequestLogFields)
    cache: CacheUse = field(default_factory=CacheUse)
    waits_indefinitely: bool = False
    """Whether it waits for as long as it takes: nobody holds a connection for it."""


def time_limit(request: SpeechRequest, context: RequestContext) -> float | None:
    """What the client gives from the request's arrival on, in its body or a header: the shorter; None: no limit."""
    given = [limit for limit in (request.deadline_ms, context.deadline_ms) if limit is not None]
    return min(given) / 1000 if given else None
