"""The JSON responses of the API. The routes build them from these models, and `openapi` describes them by the same."""

from __future__ import annotations

from datetime import date
from math import isfinite
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from balancer.access.api_keys import Role
from balancer.errors import ChorusError
from balancer.fleet.fleet import WorkerPhase
from balancer.fleet.view import RunningUtterance
from balancer.jobs.job import JobState
from balancer.jobs.report import JobReport, status_url
from balancer.jobs.service import JobStatusView
from balancer.operations.voice_library import InspectedVoice
from balancer.requests.cache_control import CacheOutcome
from balancer.scheduling.priority import Priority
from balancer.speech.results import Audio
from voices.clips import Check, Clip, Subject, checks
from voices.registry import Consent, Voice
from worker.cards import Choice, Parameter

_CAMEL_CASE = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class ErrorDetail(BaseModel):
    """An error, in the shape of OpenAI's API."""

    message: Annotated[str, Field(description="What is wrong and what to do.")]
    type: Annotated[str, Field(description="The class of the error, such as `invalid_request_error`.")]
    param: Annotated[str | None, Field(description="The invalid field, if there is one.")]
    code: Annotated[str, Field(description="The kind of error, for programs.")]


class Error(BaseModel):
    """The body of every error response."""

    error: ErrorDetail

    @classmethod
    def of(cls, error: ChorusError) -> Error:
        """The body for an error."""
        # Not validated: the message may quote input of the client that is not valid Unicode.
        detail = ErrorDetail.model_construct(message=error.message, type=error.type, param=error.param, code=error.code)
        return cls.model_construct(error=detail)


class TtsJson(BaseModel):
    """The response of `POST /tts-json`."""

    model_config = _CAMEL_CASE

    audio: Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]
    format: str
    mime_type: str
    sample_rate: Annotated[int, Field(description="Sample rate in Hz.")]
    duration: Annotated[float, Field(description="Length of the audio in seconds.")]
    character: Annotated[str, Field(description="The requested voice.")]
    cached: Annotated[bool, Field(description="Whether the audio came from the cache.")]
    request_id: str

    @classmethod
    def of(cls, audio: Audio, *, character: str, request_id: str) -> TtsJson:
        """The response but for its audio, which `JsonAudioResponse` sends in pieces."""
        # Not validated: nothing here comes from outside.
        return cls.model_construct(
            audio="",
            format=audio.format.value,
            mime_type=audio.format.media_type,
            sample_rate=audio.sample_rate,
            duration=round(audio.seconds, 3),
            character=character,
            cached=audio.outcome is CacheOutcome.HIT,
            request_id=request_id,
        )


class Link(BaseModel):
    """The response of `POST /tts/link`."""

    model_config = _CAMEL_CASE

    url: Annotated[str, Field(description="Where the audio can be fetched without an API key.")]
    expires_at: Annotated[
        str, Field(json_schema_extra={"format": "date-time"}, description="When the link ceases to work.")
    ]


class SpeechAudioDelta(BaseModel):
    """An event of a stream: the next piece of its audio."""

    type: Literal["speech.audio.delta"]
    audio: Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]


class SpeechUsage(BaseModel):
    """The cost of a stream, in OpenAI's fields."""

    input_tokens: Annotated[int, Field(description="Characters of the text.")]
    output_tokens: Annotated[int, Field(description="25 for each second of audio.")]
    total_tokens: int


class SpeechAudioDone(BaseModel):
    """The last event of a stream that is complete."""

    type: Literal["speech.audio.done"]
    usage: SpeechUsage


class JobReceipt(BaseModel):
    """An accepted job."""

    model_config = _CAMEL_CASE

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


class Model(BaseModel):
    """A name that requests may give as `model`."""

    id: str
    object: Literal["model"]
    created: Annotated[int, Field(description="When the server started: Unix time in seconds.")]
    owned_by: Literal["chorus"]


class ModelList(BaseModel):
    """The names that requests may give as `model`."""

    object: Literal["list"]
    data: list[Model]


class ModelChoice(BaseModel):
    """A name that requests may give as `model`."""

    id: str


class ModelChoices(BaseModel):
    """The models, as pickers of other servers want them."""

    models: list[ModelChoice]


class VoiceDescription(BaseModel):
    """A voice that the running engine can speak."""

    id: str
    name: str
    object: Literal["voice"]
    description: str
    language: str
    aliases: Annotated[list[str], Field(description="Other names of the voice.")]
    synthetic: Annotated[bool, Field(description="Whether the voice is not that of a real person.")]
    cloned: Annotated[bool, Field(description="Whether the voice is cloned from a reference clip.")]

    @classmethod
    def of(cls, voice: Voice) -> VoiceDescription:
        """The description of a voice."""
        return VoiceDescription(
            id=voice.name,
            name=voice.name,
            object="voice",
            description=voice.description,
            language=voice.language,
            aliases=list(voice.aliases),
            synthetic=voice.synthetic,
            cloned=voice.reference is not None,
        )


class ConsentRecord(BaseModel):
    """The speaker's consent, as it is on record."""

    model_config = _CAMEL_CASE

    given_by: Annotated[str, Field(description="Who agreed, and how.")]
    given_on: date
    note: str

    @classmethod
    def of(cls, consent: Consent) -> ConsentRecord:
        """The record of a consent."""
        return cls(given_by=consent.given_by, given_on=consent.given_on, note=consent.note)


class ClipReport(BaseModel):
    """Measurements of a recording."""

    model_config = _CAMEL_CASE

    seconds: Annotated[float, Field(description="Length.")]
    speech_seconds: Annotated[float, Field(description="Speech in it.")]
    sample_rate: Annotated[int, Field(description="Sample rate in Hz.")]
    level_dbfs: Annotated[float | None, Field(description="Level of the speech; null for silence.")]
    peak: Annotated[float, Field(description="Maximum magnitude; 1 is full scale.")]
    clipped: Annotated[float, Field(description="Share of samples that are clipped.")]

    @classmethod
    def of(cls, clip: Clip) -> ClipReport:
        """The report on a clip."""
        return cls(
            seconds=round(clip.seconds, 3),
            speech_seconds=round(clip.speech_seconds, 3),
            sample_rate=clip.sample_rate,
            level_dbfs=round(clip.level, 1) if isfinite(clip.level) else None,
            peak=round(clip.peak, 4),
            clipped=round(clip.clipped, 6),
        )


class ClipCheck(BaseModel):
    """The verdict on one property of a recording."""

    subject: Annotated[Subject, Field(description="What was checked.")]
    passed: Annotated[bool, Field(description="Whether it is good enough.")]
    words: Annotated[str, Field(description="What was measured, or what is wrong and its remedy.")]

    @classmethod
    def of(cls, check: Check) -> ClipCheck:
        """The verdict."""
        return cls(subject=check.subject, passed=check.passed, words=check.words)


class VoiceDetails(VoiceDescription):
    """A voice as operators see it: where it comes from, and what is to be said of its recording."""

    folder: Annotated[str, Field(description="Name of its folder, by which it can be named in a path, too.")]
    consent: Annotated[ConsentRecord | None, Field(description="Null for a voice that is not a person's.")]
    parameters: Annotated[
        dict[str, float | int | str | bool], Field(description="Its own defaults of the engines' parameters.")
    ]
    engines: Annotated[list[str], Field(description="The engines that can speak it.")]
    clip: Annotated[ClipReport | None, Field(description="Its recording; null if it has none that can be decoded.")]
    faults: Annotated[list[str], Field(description="What keeps the recording from being cloned well, with remedies.")]
    checks: Annotated[list[ClipCheck], Field(description="The verdict on its recording, by what was checked.")]
    notes: Annotated[list[str], Field(description="Remarks on a recording that can be used nevertheless.")]

    @classmethod
    def inspected(cls, found: InspectedVoice, engines: list[str]) -> VoiceDetails:
        """The details of a voice that `engines` can speak."""
        voice = found.voice
        return cls(
            **dict(VoiceDescription.of(voice)),
            folder=voice.folder_name,
            consent=None if voice.consent is None else ConsentRecord.of(voice.consent),
            parameters=voice.parameters,
            engines=engines,
            clip=None if found.clip is None else ClipReport.of(found.clip),
            faults=list(found.faults),
            checks=[] if found.clip is None else list(map(ClipCheck.of, checks(found.clip))),
            notes=list(found.notes),
        )


class VoiceRemoval(BaseModel):
    """A voice that was removed."""

    id: Annotated[str, Field(description="The name by which it was removed.")]
    object: Literal["voice"]
    deleted: Literal[True]


class VoiceChoice(BaseModel):
    """A name that requests may give as `voice`."""

    id: str
    name: str


class VoiceList(BaseModel):
    """The voices of the running engine."""

    object: Literal["list"]
    engine: Annotated[str, Field(description="The running engine.")]
    data: list[VoiceDescription]
    voices: Annotated[
        list[VoiceChoice],
        Field(description="The same voices and their aliases, as pickers of other servers want them."),
    ]
    engines: Annotated[dict[str, list[str]], Field(description="The names of the voices of every engine.")]


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


class EngineParameter(BaseModel):
    """A parameter of the running engine, which a request may set: a number in a range, or one of several words."""

    name: str
    description: str
    minimum: Annotated[float | None, Field(description="Null if it is not a number, as are the next two.")]
    maximum: float | None
    default: float | None
    integer: Annotated[bool, Field(description="Whether the number is a whole one.")]
    choices: Annotated[list[str], Field(description="Empty for a number.")]

    @classmethod
    def of(cls, parameter: Parameter | Choice) -> EngineParameter:
        """The parameter of an engine's card."""
        number = parameter if isinstance(parameter, Parameter) else None
        return cls(
            name=parameter.name,
            description=parameter.description,
            minimum=None if number is None else number.minimum,
            maximum=None if number is None else number.maximum,
            default=None if number is None else number.default,
            integer=number is not None and number.integer,
            choices=list(parameter.choices) if isinstance(parameter, Choice) else [],
        )


class Capabilities(BaseModel):
    """The engine, the limits, and the caller's role."""

    model_config = _CAMEL_CASE

    engine: Annotated[str, Field(description="The running engine.")]
    description: str
    sample_rate: Annotated[int, Field(description="Sample rate in Hz.")]
    parameters: list[EngineParameter]
    tags: Annotated[list[str], Field(description="Sounds and manners of speaking that a text may ask for.")]
    clones_voices: bool
    formats: list[str]
    max_text_characters: Annotated[int, Field(description="Characters of a request's text, at most.")]
    max_job_text_characters: Annotated[int, Field(description="Characters of a job's text, at most.")]
    role: Annotated[Role | None, Field(description="The role of the API key of the request; null without a key.")]


class SegmentPreview(BaseModel):
    """A part of a text that is spoken in one utterance."""

    model_config = _CAMEL_CASE

    text: Annotated[str, Field(description="What is said: numbers and abbreviations in words, without markup.")]
    pause_seconds: Annotated[float, Field(description="The silence behind it.")]


class SegmentPreviews(BaseModel):
    """The segments of a text, and its expected length."""

    characters: Annotated[int, Field(description="Characters of the text as it was sent, which limits count.")]
    seconds: Annotated[float, Field(description="Length of the audio, about.")]
    segments: list[SegmentPreview]


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

    model_config = _CAMEL_CASE

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

    model_config = _CAMEL_CASE

    pid: int
    started_at: Annotated[float, Field(description="Unix time in seconds.")]
    draining: bool
    idle: Annotated[bool, Field(description="Whether no utterance is queued or running.")]
    reason: Annotated[str | None, Field(description="Why no worker can synthesize; null if one can.")]
    workers: Annotated[list[int], Field(description="Indices of the workers.")]
    successor_failure: Annotated[
        str | None, Field(description="Why the balancer that was to replace this one has not; null if none has failed.")
    ]
