"""The public description of a job, as status responses and webhooks send it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from balancer.audio.formats import AudioFormat
from balancer.jobs.job import Job, JobError, JobState


class JobReport(BaseModel):
    """A job, without its place in the queue."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)

    request_id: Annotated[str, Field(description="The id of the job.")]
    ready: Annotated[bool, Field(description="Whether the audio can be fetched.")]
    state: JobState
    audio_url: Annotated[str | None, Field(description="Where the audio can be fetched; null until the job is done.")]
    status_url: Annotated[str, Field(description="Where the status of the job can be fetched.")]
    format: AudioFormat
    mime_type: Annotated[str, Field(description="Media type of the audio.")]
    duration: Annotated[float | None, Field(description="Seconds of audio; null until the job is done.")]
    attempts: Annotated[int, Field(description="Attempts started so far.")]
    error: Annotated[JobError | None, Field(description="Why the job failed, or why its last attempt did.")]
    user_id: Annotated[str | None, Field(description="The userId of the request.")]
    created_at: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    finished_at: Annotated[str | None, Field(description="Date and time of the end, in the form of createdAt.")]

    @classmethod
    def of(cls, job: Job, base_url: str) -> Self:
        """The report on a job; `base_url` is where the reader reaches this server, without a slash at its end."""
        done = job.state is JobState.DONE
        audio_format = AudioFormat(job.format)
        return cls(
            request_id=job.id,
            ready=done,
            state=job.state,
            audio_url=f"{base_url}/audio/{job.id}" if done else None,
            status_url=status_url(job, base_url),
            format=audio_format,
            mime_type=audio_format.media_type,
            duration=None if job.seconds is None else round(job.seconds, 3),
            attempts=job.attempts,
            error=job.error,
            user_id=job.user_id,
            created_at=_iso(job.created),
            finished_at=None if job.finished is None else _iso(job.finished),
        )


def status_url(job: Job, base_url: str) -> str:
    """The URL of a job's status."""
    return f"{base_url}/status/{job.id}"


def _iso(seconds: float) -> str:
    """Unix time as ISO 8601, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()
