"""JSON responses about the state of the server."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from balancer.api.models.camel_case import CAMEL_CASE
from balancer.fleet.fleet import WorkerPhase
from balancer.fleet.view import RunningUtterance
from balancer.scheduling.priority import Priority


class RunningReport(BaseModel):
    """An utterance that a worker speaks, without its text."""

    voice: str
    characters: Annotated[int, Field(description="Length of its text, as it is spoken.")]
    priority: Priority
    seconds: Annotated[float, Field(description="Since it was given to the worker.")]
    expected_seconds: Annotated[float, Field(description="How long it is expected to take.")]

    @classmethod
    def of(cls, running: RunningUtterance) -> RunningReport:
        """The report on an utterance."""
        return cls(
            voice=running.voice,
            characters=running.characters,
            priority=running.priority,
            seconds=round(running.seconds, 3),
            expected_seconds=round(running.expected_seconds, 3),
        )


class WarningReport(BaseModel):
    """A condition that an operator should look into."""

    code: Annotated[str, Field(description="The kind, for programs.")]
    message: Annotated[str, Field(description="What is wrong, with figures of the last minute, and where to read on.")]


class WorkerReport(BaseModel):
    """A worker that has no running process."""

    index: int
    phase: WorkerPhase
    reason: Annotated[str | None, Field(description="Why the worker is not ready, if it is known.")]


class WorkerProcessReport(WorkerReport):
    """A worker with a running process."""

    pid: int
    engine: str
    model: str
    sample_rate: Annotated[int, Field(description="Sample rate in Hz.")]
    cores: Annotated[list[int], Field(description="CPUs that the process may run on.")]
    threads: int
    slots: Annotated[int, Field(description="Utterances that the worker can synthesize at once.")]
    done: Annotated[int, Field(description="Utterances completed since the process started.")]
    speed: Annotated[float | None, Field(description="Seconds of audio per second of work; null until it is known.")]
    stage_seconds: Annotated[
        dict[str, float], Field(description="Seconds of work by stage, if the engine measures them.")
    ]
    resident_bytes: Annotated[int, Field(description="Resident memory, including shared memory.")]
    shared_bytes: Annotated[int, Field(description="Resident memory that is mapped from files.")]
    cpu_seconds: float
    started_at: Annotated[float, Field(description="Unix time in seconds.")]
    in_flight: Annotated[int, Field(description="Utterances that are being synthesized.")]
    running: Annotated[list[RunningReport], Field(description="What it speaks now, the oldest first.")]
    cpu_cores: Annotated[float | None, Field(description="CPU usage, in cores; left out if it is unknown.")] = None


class HealthStatus(BaseModel):
    """Whether the server can synthesize: all that `/health` tells without an API key, where keys are required."""

    status: Literal["healthy", "unhealthy"]
    timestamp: str
    draining: Annotated[bool, Field(description="Whether the operator is draining this host.")]


class Health(HealthStatus):
    """The state of the server and of every worker."""

    model_config = CAMEL_CASE

    version: Annotated[str, Field(description="Version of the server.")]
    reason: Annotated[str | None, Field(description="Why no worker can synthesize; null if one can.")]
    queue_depth: Annotated[int, Field(description="Utterances in the queue.")]
    queue_depths: Annotated[dict[str, int], Field(description="Utterances in the queue, by priority.")]
    slots: Annotated[int, Field(description="Slots of all workers that accept utterances.")]
    free_slots: int
    warnings: Annotated[list[WarningReport], Field(description="What an operator should look into, if anything.")]
    workers: list[WorkerProcessReport | WorkerReport]


class ReadinessStatus(BaseModel):
    """Whether clients should be sent here: all that `/ready` tells without an API key, where keys are required."""

    ready: bool
    timestamp: str
    draining: Annotated[bool, Field(description="Whether the operator is draining this host.")]


class Readiness(ReadinessStatus):
    """Whether clients should be sent to this host, and the phases of its workers."""

    reason: Annotated[str | None, Field(description="Why not; null if ready.")]
    degraded: Annotated[list[str], Field(description="What does not work while speech does, and why.")]
    phases: Annotated[dict[WorkerPhase, int], Field(description="Number of workers in each phase.")]
    reasons: Annotated[dict[str, str], Field(description="Why workers are not ready, by worker index.")]


class Liveness(BaseModel):
    """The balancer answers."""

    alive: Literal[True]


class MetricsSummary(BaseModel):
    """A summary of the metrics. The last two cover the last minute."""

    queue_size: Annotated[int, Field(description="Utterances in the queue.")]
    avg_wait_time: Annotated[float, Field(description="Mean time in the queue, in seconds.")]
    requests_per_minute: Annotated[int, Field(description="Speech requests answered with audio.")]


class DrainState(BaseModel):
    """Whether the host is in service."""

    draining: Annotated[bool, Field(description="Whether `/ready` answers 503, so that clients are sent elsewhere.")]
    idle: Annotated[bool, Field(description="Whether no utterance is queued or running.")]


class ControlState(BaseModel):
    """The state of the balancer, on its control socket."""

    model_config = CAMEL_CASE

    pid: int
    started_at: Annotated[float, Field(description="Unix time in seconds.")]
    draining: bool
    idle: Annotated[bool, Field(description="Whether no utterance is queued or running.")]
    reason: Annotated[str | None, Field(description="Why no worker can synthesize; null if one can.")]
    workers: Annotated[list[int], Field(description="Indices of the workers.")]
    successor_failure: Annotated[
        str | None, Field(description="Why the balancer that was to replace this one has not; null if none has failed.")
    ]
