"""JSON responses about jobs."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, Field

from balancer.api.models.camel_case import CAMEL_CASE
from balancer.jobs.job import JobState
from balancer.jobs.report import JobReport, status_url
from balancer.jobs.service import JobStatusView


class JobReceipt(BaseModel):
    """An accepted job."""

    model_config = CAMEL_CASE

    request_id: Annotated[str, Field(description="The id of the job.")]
    status_url: Annotated[str, Field(description="Where the status of the job can be fetched.")]
    position: Annotated[int, Field(description="Place in the queue: 1 is next; 0 if the job is not queued.")]
    eta_seconds: Annotated[float, Field(description="Estimated seconds until the job is done.")]
    state: JobState

    @classmethod
    def of(cls, view: JobStatusView, base_url: str) -> Self:
        """The receipt of a job, for a client that reaches this server at `base_url`."""
        return cls(
            request_id=view.job.id,
            status_url=status_url(view.job, base_url),
            position=view.position,
            eta_seconds=round(view.eta_seconds, 2),
            state=view.job.state,
        )


class JobReceipts(BaseModel):
    """The accepted jobs of a batch, in the order of its lines."""

    jobs: list[JobReceipt]


class JobStatus(JobReport):
    """The state of a job, and its place in the queue."""

    position: Annotated[int, Field(description="Place in the queue: 1 is next; 0 if the job is not queued.")]
    eta_seconds: Annotated[float, Field(description="Estimated seconds until the job is done.")]
    progress: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Share of the work that is done: finished segments, or an estimate for a short text.",
        ),
    ]
    segments: Annotated[
        int | None,
        Field(description="Segments that the text is spoken in; null until it is begun, and for a short text."),
    ]
    segments_done: Annotated[int, Field(description="Segments that are finished; a crash does not lose them.")]
    seconds_done: Annotated[float, Field(description="Seconds of audio that are finished, about.")]
    seconds_playable: Annotated[
        float, Field(description="Seconds of them from the beginning on, without a gap: they can be listened to.")
    ]
    stream_url: Annotated[
        str | None,
        Field(description="Where the audio can be listened to while it is made; null until its beginning is finished."),
    ]

    @classmethod
    def of_view(cls, view: JobStatusView, base_url: str) -> Self:
        """The status of a job, for a client that reaches this server at `base_url`."""
        return cls(
            **dict(JobReport.of(view.job, base_url)),
            position=view.position,
            eta_seconds=round(view.eta_seconds, 2),
            progress=view.progress,
            segments=view.job.segments,
            segments_done=view.job.segments_done,
            seconds_done=round(view.seconds_done, 3),
            seconds_playable=round(view.seconds_playable, 3),
            stream_url=f"{base_url}/audio/{view.job.id}?stream=true" if view.seconds_playable else None,
        )
