"""The OpenAPI description of the API. Its schemas come from the models that validate requests and build responses."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from balancer.access.links import CALLER, EXPIRES, SIGNATURE
from balancer.api.documents import FILE_FIELD, DocumentText
from balancer.api.history import HistoryReport
from balancer.api.models.catalogue import Capabilities, Model, ModelChoices, ModelList
from balancer.api.models.error import Error
from balancer.api.models.health import (
    DrainState,
    Health,
    HealthStatus,
    Liveness,
    MetricsSummary,
    Readiness,
    ReadinessStatus,
)
from balancer.api.models.jobs import JobReceipt, JobReceipts, JobStatus
from balancer.api.models.speech import Link, SegmentPreviews, TtsJson
from balancer.api.models.voices import VoiceDetails, VoiceList, VoiceRemoval
from balancer.api.voices import CLIP_FIELD
from balancer.audio.formats import AudioFormat
from balancer.requests.bodies import DEFAULT_VOICE, LinkBody, OpenAISpeechBody, QueueBody, TtsBody
from balancer.requests.validation import RequestValidator
from balancer.requests.voice_form import VoiceForm
from voices.clips import KINDS
from worker.cards import Choice, Parameter

_REFERENCE = "#/components/schemas/{model}"

_REQUESTS: tuple[type[BaseModel], ...] = (OpenAISpeechBody, TtsBody, LinkBody, QueueBody)
_RESPONSES: tuple[type[BaseModel], ...] = (
    Error,
    TtsJson,
    Link,
    JobReceipt,
    JobReceipts,
    JobStatus,
    Model,
    ModelChoices,
    ModelList,
    VoiceList,
    VoiceDetails,
    VoiceRemoval,
    Capabilities,
    SegmentPreviews,
    DrainState,
    Health,
    HealthStatus,
    Readiness,
    ReadinessStatus,
    Liveness,
    MetricsSummary,
    HistoryReport,
    DocumentText,
)

_VOICE_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
_JOB_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}


_LINK_FIELDS = {
    CALLER: "Of a signed link: who made it.",
    EXPIRES: "Of a signed link: Unix time in seconds from which it works no more.",
    SIGNATURE: "Of a signed link: it needs no API key.",
}


class _SchemaGenerator(GenerateJsonSchema):
    """Leaves out the titles of fields, which only repeat their names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def describe(validator: RequestValidator, version: str) -> dict[str, Any]:
    """The OpenAPI document for the running engine, whose parameters are fields of the request bodies."""
    schemas = _schemas(validator)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Chorus",
            "version": version,
            "summary": "Text to speech at scale on CPU hosts.",
            "description": f"Engine: `{validator.card.name}`. {validator.card.description}",
        },
        "paths": _paths(schemas[TtsBody.__name__]),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        # The empty entry: a server without configured keys needs none.
        "security": [{}, {"bearer": []}, {"key": []}],
    }
    _name_operations(document["paths"])
    return document


def _schemas(validator: RequestValidator) -> dict[str, Any]:
    """The schemas of all bodies of requests and responses, by the names of their models."""
    _, definitions = models_json_schema(
        [
            *((model, "validation") for model in _REQUESTS),
            (VoiceForm, "validation"),
            *((model, "serialization") for model in _RESPONSES),
        ],
        ref_template=_REFERENCE,
        schema_generator=_SchemaGenerator,
    )
    schemas: dict[str, Any] = definitions["$defs"]
    for model in _REQUESTS:
        _add_engine_fields(schemas[model.__name__], validator)
    _add_clip(schemas[VoiceForm.__name__])
    return schemas


def _paths(tts_body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The operations by path and method; `tts_body` is the schema of the body of `POST /tts`."""
    return {
        "/v1/audio/speech": {
            "post": _speech(
                "Synthesize speech, as OpenAI's API does",
                OpenAISpeechBody,
                _audio() | {"text/event-stream": {}},
            )
        },
        "/tts": {
            "post": _speech("Synthesize speech; the response is the audio", TtsBody, _audio()),
            "get": _speech_by_query(tts_body),
        },
        "/tts-json": {
            "post": _speech("Synthesize speech; the response is JSON with the audio in base64", TtsBody, _json(TtsJson))
        },
        "/tts/link": {"post": _link()},
        "/segments": {"post": _segments()},
        "/queue": {"post": _queue("Queue a durable job: it is synthesized when workers are idle", JobReceipt)},
        "/queue/batch": {"post": _queue("Queue many jobs, one per line, all or none", JobReceipts, lines=True)},
        "/queue/{id}": {"delete": _job("Cancel a job, or delete one that has ended", _json(JobStatus))},
        "/status/{id}": {
            "get": _job(
                "The status of a job; with `Accept: text/event-stream`, an event at each change",
                _json(JobStatus) | {"text/event-stream": {}},
            )
        },
        "/audio/{id}": {"get": _download()},
        "/documents": {"post": _document()},
        "/capabilities": {"get": _read("What can be asked of the server, and by whom", _json(Capabilities))},
        "/v1/models": {"get": _read("The names accepted as `model`", _json(ModelList))},
        "/v1/models/{model}": {
            "get": _read("One model", _json(Model))
            | {"parameters": [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]}
        },
        "/v1/audio/models": {"get": _read("The names accepted as `model`, for pickers", _json(ModelChoices))},
        "/v1/audio/voices": {
            "get": _read("The voices of the running engine", _json(VoiceList)),
            "post": _operator("Add a voice that is cloned from a recording", VoiceDetails, form=VoiceForm),
        },
        "/v1/audio/voices/{name}": {
            "get": _operator("One voice: its recording, consent and engines", VoiceDetails, of_voice=True),
            "delete": _operator("Delete a voice with its recording", VoiceRemoval, of_voice=True),
        },
        "/drain": {"post": _operator("Take this host out of service: `/ready` answers 503", DrainState)},
        "/resume": {"post": _operator("Put a drained host back into service", DrainState)},
        "/health": {"get": _probe("The state of the server and of every worker", Health, HealthStatus)},
        "/ready": {"get": _probe("Whether clients should be sent to this host", Readiness, ReadinessStatus)},
        "/livez": {"get": _read("Whether the balancer answers, also without workers", _json(Liveness), "Operations")},
        "/metrics": {"get": _metrics()},
        "/history": {"get": _history()},
    }


def _name_operations(paths: dict[str, dict[str, Any]]) -> None:
    """Give each operation an id, from which generators of clients make its name: `post_v1_audio_speech`."""
    for path, operations in paths.items():
        words = "_".join(re.findall(r"\w+", path))
        for method, operation in operations.items():
            operation["operationId"] = f"{method}_{words.replace('-', '_')}"


def _add_engine_fields(schema: dict[str, Any], validator: RequestValidator) -> None:
    schema["additionalProperties"] = False
    for parameter in validator.card.parameters:
        schema["properties"][parameter.name] = _field(parameter) | {"description": parameter.description}
    text = schema["properties"].get("text") or schema["properties"]["input"]
    text["maxLength"] = validator.max_characters
    text["examples"] = ["Hello from Chorus."]
    schema["properties"]["voice"]["examples"] = [DEFAULT_VOICE]
    schema["properties"]["model"]["examples"] = [validator.card.name]


def _add_clip(schema: dict[str, Any]) -> None:
    schema["properties"][CLIP_FIELD] = {
        "type": "string",
        "format": "binary",
        "description": f"Recording of 10 to 15 s of speech: {KINDS}.",
    }
    schema["required"] = [*schema["required"], CLIP_FIELD]


def _field(parameter: Parameter | Choice) -> dict[str, Any]:
    if isinstance(parameter, Choice):
        return {"type": "string", "enum": list(parameter.choices)}
    return {
        "type": "integer" if parameter.integer else "number",
        "minimum": parameter.minimum,
        "maximum": parameter.maximum,
        "default": parameter.default,
    }


def _speech(summary: str, body: type[BaseModel], content: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": summary,
        "tags": ["Speech"],
        "requestBody": {"required": True, "content": _json(body)},
        "responses": {
            "200": {"description": "The audio", "content": content},
            "4XX": {"description": "The request is invalid or not permitted", "content": _json(Error)},
            "5XX": {
                "description": "The server cannot complete the request; see `Retry-After`",
                "content": _json(Error),
            },
        },
    }


def _link() -> dict[str, Any]:
    operation = _speech("Make a signed link, by which a page plays a text without an API key", LinkBody, _json(Link))
    operation["responses"]["200"]["description"] = "The link"
    return operation | {"tags": ["Links"]}


def _segments() -> dict[str, Any]:
    operation = _speech("How a text would be spoken; nothing is", TtsBody, _json(SegmentPreviews))
    operation["responses"]["200"]["description"] = "The segments"
    return operation | {"tags": ["Catalogue"]}


def _speech_by_query(body: dict[str, Any]) -> dict[str, Any]:
    """`body` is the schema whose fields the query has."""
    operation = _speech(
        "Synthesize speech for `<audio src>`: signed links, and others if the server offers it", TtsBody, _audio()
    )
    del operation["requestBody"]
    operation["parameters"] = [
        {
            "name": name,
            "in": "query",
            "required": name in body["required"],
            "schema": {key: value for key, value in field.items() if key != "description"},
            "description": field["description"],
        }
        for name, field in body["properties"].items()
    ]
    operation["responses"] |= {"206": {"description": "The requested range", "content": _audio()}}
    operation["parameters"] += [
        {"name": name, "in": "query", "required": False, "schema": {"type": "string"}, "description": description}
        for name, description in _LINK_FIELDS.items()
    ]
    return operation


def _queue(summary: str, response: type[BaseModel], *, lines: bool = False) -> dict[str, Any]:
    operation = _speech(summary, QueueBody, _json(response))
    operation["tags"] = ["Jobs"]
    operation["responses"]["202"] = operation["responses"].pop("200") | {"description": "Accepted, and stored durably"}
    if lines:
        # OpenAPI cannot describe JSON lines: here each line is an item of an array.
        schema = {"type": "array", "minItems": 1, "items": _reference(QueueBody)}
        operation["requestBody"]["content"] = {"application/x-ndjson": {"schema": schema}}
    else:
        header = {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "maxLength": 200},
        }
        operation["parameters"] = [header]
    return operation


def _job(summary: str, content: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": summary,
        "tags": ["Jobs"],
        "parameters": [_JOB_ID],
        "responses": {
            "200": {"description": summary, "content": content},
            "4XX": {"description": "There is no such job, or its state does not allow this", "content": _json(Error)},
            "5XX": {"description": "The job store is unavailable", "content": _json(Error)},
        },
    }


def _download() -> dict[str, Any]:
    operation = _job("The audio of a job that is done, whole or in ranges", _audio())
    description = "Whether the audio of a job that is not done comes as it is made, without a length."
    stream = {
        "name": "stream",
        "in": "query",
        "required": False,
        "schema": {"type": "boolean"},
        "description": description,
    }
    operation["parameters"] = [*operation["parameters"], stream]
    operation["responses"] |= {
        "206": {"description": "The requested ranges"},
        "304": {"description": "The client has it already"},
        "416": {"description": "The range is not satisfiable"},
    }
    return operation


def _document() -> dict[str, Any]:
    file = {"type": "string", "format": "binary"}
    form = {"type": "object", "required": [FILE_FIELD], "properties": {FILE_FIELD: file}}
    bodies = ("text/plain", "text/markdown", "application/epub+zip", "text/csv")
    return {
        "summary": "Read the chapters of a document, or the jobs of a table, for `/queue`",
        "tags": ["Jobs"],
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": form}} | {media_type: {} for media_type in bodies},
        },
        "responses": {
            "200": {"description": "What is to be spoken", "content": _json(DocumentText)},
            "4XX": {"description": "The document cannot be read; the message says why", "content": _json(Error)},
            "5XX": {"description": "Too much is under way; see `Retry-After`", "content": _json(Error)},
        },
    }


def _operator(
    summary: str, response: type[BaseModel], *, form: type[BaseModel] | None = None, of_voice: bool = False
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": summary,
        "tags": ["Operators"],
        "description": "Needs an API key of the role `operator`.",
        "responses": {
            "200" if form is None else "201": {"description": summary, "content": _json(response)},
            "4XX": {"description": "The request is invalid, or has no operator's API key", "content": _json(Error)},
            "503": {"description": "The folder of voices is not available", "content": _json(Error)},
        },
    }
    if form is not None:
        operation["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": _reference(form)}}}
    if of_voice:
        operation["parameters"] = [_VOICE_NAME]
    return operation


def _read(summary: str, content: dict[str, Any], tag: str = "Catalogue") -> dict[str, Any]:
    refused = {"description": "No valid API key, or no such resource", "content": _json(Error)}
    return {
        "summary": summary,
        "tags": [tag],
        "responses": {"200": {"description": summary, "content": content}, "4XX": refused},
    }


def _probe(summary: str, response: type[BaseModel], to_strangers: type[BaseModel]) -> dict[str, Any]:
    """`to_strangers` is the response to a request without an API key, where keys are required."""
    content = {"application/json": {"schema": {"anyOf": [_reference(response), _reference(to_strangers)]}}}
    operation = _read(summary, content, "Operations")
    operation["responses"]["503"] = {"description": "Not available; `reason` says why", "content": content}
    return operation


def _metrics() -> dict[str, Any]:
    summary = "Prometheus metrics; with `Accept: application/json`, a summary"
    return _read(summary, {"text/plain": {}} | _json(MetricsSummary), "Operations")


def _history() -> dict[str, Any]:
    operation = _read("The last hour in numbers, for plots", _json(HistoryReport), "Operations")
    since = {
        "name": "since",
        "in": "query",
        "required": False,
        "schema": {"type": "number", "minimum": 0},
        "description": "Only intervals that ended after this Unix time: `latest` of the last answer.",
    }
    operation["responses"] |= {"304": {"description": "The client has it already"}}
    return operation | {"parameters": [since]}


def _audio() -> dict[str, Any]:
    # With a schema: generators of clients would else leave the audio out.
    return {audio_format.media_type: {"schema": {"type": "string", "format": "binary"}} for audio_format in AudioFormat}


def _json(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": _reference(model)}}


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=model.__name__)}
