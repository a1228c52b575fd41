"""`GET /history`: the last hour in numbers, by columns, for plots."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from balancer.api.responses import JSONResponse
from balancer.errors import InvalidRequestError
from balancer.operations.history import History

Number = TypeVar("Number")
Measured = TypeVar("Measured")

_CAMEL_CASE = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")
_GROUPS = ("refusals", "jobsKept")
"""Groups of names that may be empty."""


class HistoryPercentiles(BaseModel, Generic[Measured]):
    """Percentiles in seconds, by a histogram: off by a fifth at most. Null where nothing was measured."""

    p50: Measured
    p95: Measured
    p99: Measured


class HistorySlots(BaseModel, Generic[Number]):
    """Slots of all workers that accept utterances."""

    busy: Number
    total: Number


class HistoryStreams(BaseModel, Generic[Number]):
    """Answers that are sent while they are made."""

    model_config = _CAMEL_CASE

    running: Number
    gaps: Annotated[Number, Field(description="Times that a listener had nothing to play.")]
    gap_seconds: Number


class HistoryFaults(BaseModel, Generic[Number]):
    """Counts of faults that an operator should look into."""

    model_config = _CAMEL_CASE

    cache_errors: Number
    task_failures: Annotated[Number, Field(description="Failures of background tasks.")]
    workers_lost: Number


class HistoryValues(BaseModel, Generic[Number, Measured]):
    """The values of an interval. Counts are those of the interval, levels are means."""

    model_config = _CAMEL_CASE

    at: Annotated[Number, Field(description="End of the interval: Unix time in seconds.")]
    seconds: Annotated[Number, Field(description="Length of the interval.")]
    requests: Annotated[
        dict[str, dict[str, Number]],
        Field(
            description="Finished requests by kind (`speech`, `jobs`, `other`) and outcome (`ok`, `invalid`, "
            "`refused`, `failed`, `gone`)."
        ),
    ]
    audio_seconds: Annotated[Number, Field(description="Audio that was sent to clients.")]
    answer: Annotated[HistoryPercentiles[Measured], Field(description="Time of whole answers with audio.")]
    first_sound: Annotated[HistoryPercentiles[Measured], Field(description="Time until the first byte of streams.")]
    queue: Annotated[dict[str, Number], Field(description="Queued utterances by priority.")]
    queue_wait: Annotated[HistoryPercentiles[Measured], Field(description="Time that utterances waited for a slot.")]
    slots: HistorySlots[Number]
    streams: HistoryStreams[Number]
    connections: Annotated[Number, Field(description="Open connections.")]
    cache: Annotated[dict[str, Number], Field(description="Speech requests by the source of their audio.")]
    jobs: Annotated[dict[str, Number], Field(description="Finished attempts at jobs by outcome.")]
    jobs_kept: Annotated[dict[str, Number], Field(description="Stored jobs by state.")]
    webhooks: Annotated[dict[str, Number], Field(description="Attempts to deliver webhooks by outcome.")]
    refusals: Annotated[
        dict[str, Number],
        Field(description="Speech requests answered with an error, by its code; those that occurred since the start."),
    ]
    faults: HistoryFaults[Number]
    loop_lag: Annotated[HistoryPercentiles[Measured], Field(description="Time by which the event loop woke too late.")]


class HistoryColumns(HistoryValues[list[float], list[float | None]]):
    """Intervals by columns: each list has a value for each interval, the oldest first."""


class HistorySummary(HistoryValues[float, float | None]):
    """One interval."""


class HistoryReport(BaseModel):
    """The last hour in numbers, since the balancer started."""

    model_config = _CAMEL_CASE

    started_at: Annotated[float, Field(description="When the history began: Unix time in seconds.")]
    latest: Annotated[float, Field(description="When the last interval ended; the next request's `since`.")]
    seconds: Annotated[HistoryColumns, Field(description="The last three minutes by seconds.")]
    minutes: Annotated[HistoryColumns, Field(description="The last hour by minutes.")]
    last_minute: HistorySummary | None
    last_hour: HistorySummary | None


def routes(history: History) -> list[Route]:
    """The route."""

    async def get_history(request: Request) -> Response:
        since = _since(request)
        headers = {"ETag": f'"{history.latest:.3f}"', "Cache-Control": "private, no-cache"}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return JSONResponse(report(history, since), headers=headers)

    return [Route("/history", get_history)]


def report(history: History, since: float = 0.0) -> dict[str, Any]:
    """A HistoryReport of the intervals that ended after `since`: not validated, since it is made every second."""
    minute, hour = history.last_minute, history.last_hour
    return {
        "startedAt": round(history.started_at, 3),
        "latest": history.latest,
        "seconds": _nested(history.seconds(since)),
        "minutes": _nested(history.minutes(since)),
        "lastMinute": None if minute is None else _nested(minute),
        "lastHour": None if hour is None else _nested(hour),
    }


def _since(request: Request) -> float:
    try:
        since = float(request.query_params.get("since", "0"))
    except ValueError:
        since = -1.0
    if not (isfinite(since) and since >= 0):
        raise InvalidRequestError(
            "`since` must be a Unix time in seconds, as `latest` of the last answer", param="since"
        )
    return since


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Objects in place of names that are paths."""
    nested: dict[str, Any] = {group: {} for group in _GROUPS}
    for path, value in flat.items():
        *groups, name = path.split(".")
        place = nested
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = value
    return nested
