"""The OpenAPI description of what is served, its schemas taken from the very models that check the requests."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from balancer.audio.formats import AudioFormat
from balancer.jobs.job import JobState
from balancer.requests.bodies import DEFAULT_VOICE, OpenAISpeechBody, QueueBody, TtsBody
from balancer.requests.validation import RequestValidator
from worker.cards import Choice, Parameter

_REFERENCE = "#/components/schemas/{model}"

_BODIES: tuple[type[BaseModel], ...] = (OpenAISpeechBody, TtsBody, QueueBody)

_ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "What is wrong and what to do."},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "The field at fault."},
                "code": {"type": "string"},
            },
        }
    },
}

_TTS_JSON_SCHEMA = {
    "type": "object",
    "properties": {
        "audio": {"type": "string", "contentEncoding": "base64"},
        "format": {"type": "string"},
        "mimeType": {"type": "string"},
        "sampleRate": {"type": "integer", "description": "Samples a second."},
        "duration": {"type": "number", "description": "Seconds."},
        "character": {"type": "string"},
        "cached": {"type": "boolean"},
        "requestId": {"type": "string"},
    },
}


_JOB_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}

_NULLABLE_NUMBER = {"type": ["number", "null"]}
_NULLABLE_TEXT = {"type": ["string", "null"]}

_RECEIPT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["requestId", "statusUrl", "state", "position", "etaSeconds"],
    "properties": {
        "requestId": {"type": "string"},
        "statusUrl": {"type": "string"},
        "state": {"$ref": _REFERENCE.format(model="JobState")},
        "position": {"type": "integer", "description": "1 is next; 0: not queued."},
        "etaSeconds": {"type": "number", "description": "Until it is done, as far as is known."},
    },
}

_STATUS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": [*_RECEIPT_SCHEMA["required"], "ready", "audioUrl", "progress", "error"],
    "properties": {
        **_RECEIPT_SCHEMA["properties"],
        "ready": {"type": "boolean"},
        "audioUrl": _NULLABLE_TEXT,
        "progress": {"type": "number", "minimum": 0, "maximum": 1},
        "error": {
            "type": ["object", "null"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        },
        "format": {"type": "string"},
        "mimeType": {"type": "string"},
        "duration": _NULLABLE_NUMBER,
        "attempts": {"type": "integer"},
        "userId": _NULLABLE_TEXT,
        "createdAt": {"type": "string", "format": "date-time"},
        "finishedAt": _NULLABLE_TEXT,
    },
}

_RECEIPTS_SCHEMA = {
    "type": "object",
    "required": ["jobs"],
    "properties": {"jobs": {"type": "array", "items": {"$ref": _REFERENCE.format(model="JobReceipt")}}},
}


def describe(validator: RequestValidator, version: str) -> dict[str, Any]:
    """The document for the engine that runs, whose parameters are fields of the request bodies."""
    _, definitions = models_json_schema([(body, "validation") for body in _BODIES], ref_template=_REFERENCE)
    schemas = definitions["$defs"]
    for body in _BODIES:
        _name_parameters(schemas[body.__name__], validator)
    schemas |= {
        "Error": _ERROR_SCHEMA,
        "TtsJson": _TTS_JSON_SCHEMA,
        "JobState": {"type": "string", "enum": [state.value for state in JobState]},
        "JobReceipt": _RECEIPT_SCHEMA,
        "JobReceipts": _RECEIPTS_SCHEMA,
        "JobStatus": _STATUS_SCHEMA,
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Chorus",
            "version": version,
            "summary": "Text to speech from ordinary CPU hosts.",
            "description": f"Engine: `{validator.card.name}`. {validator.card.description}",
        },
        "paths": {
            "/v1/audio/speech": {"post": _speak("Speak, as OpenAI's API does", OpenAISpeechBody, _audio())},
            "/tts": {"post": _speak("Speak; the answer is the audio", TtsBody, _audio())},
            "/tts-json": {"post": _speak("Speak; the answer holds the audio in base64", TtsBody, _json("TtsJson"))},
            "/queue": {
                "post": _accept("Hand in a job: it is spoken when workers are idle, and not lost", "JobReceipt")
            },
            "/queue/batch": {"post": _accept("Hand in many jobs, one in each line", "JobReceipts", lines=True)},
            "/queue/{id}": {"delete": _job("Cancel a job", _json("JobStatus"))},
            "/status/{id}": {
                "get": _job(
                    "How a job stands; with `Accept: text/event-stream`, an event at each change",
                    _json("JobStatus") | {"text/event-stream": {}},
                )
            },
            "/audio/{id}": {"get": _download()},
            "/v1/models": {"get": _look("The names accepted as `model`")},
            "/v1/models/{model}": {
                "get": _look("One model")
                | {"parameters": [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]}
            },
            "/v1/audio/voices": {"get": _look("The voices that can be asked for")},
            "/health": {"get": _probe("Health, with every worker")},
            "/ready": {"get": _probe("Whether a worker can speak")},
            "/metrics": {"get": _look("Prometheus metrics; a summary with `Accept: application/json`", "Operations")},
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        # The empty one: a server without keys asks for none.
        "security": [{}, {"bearer": []}, {"key": []}],
    }


def _name_parameters(schema: dict[str, Any], validator: RequestValidator) -> None:
    schema["additionalProperties"] = False
    for parameter in validator.card.parameters:
        schema["properties"][parameter.name] = _field(parameter) | {"description": parameter.description}
    text = schema["properties"].get("text") or schema["properties"]["input"]
    text["maxLength"] = validator.max_text_characters
    text["examples"] = ["Hello from Chorus."]
    schema["properties"]["voice"]["examples"] = [DEFAULT_VOICE]
    schema["properties"]["model"]["examples"] = [validator.card.name]


def _field(parameter: Parameter | Choice) -> dict[str, Any]:
    if isinstance(parameter, Choice):
        return {"type": "string", "enum": list(parameter.choices)}
    return {
        "type": "integer" if parameter.integer else "number",
        "minimum": parameter.minimum,
        "maximum": parameter.maximum,
        "default": parameter.default,
    }


def _speak(summary: str, body: type[BaseModel], answer: dict[str, Any]) -> dict[str, Any]:
    schema = {"$ref": _REFERENCE.format(model=body.__name__)}
    return {
        "summary": summary,
        "tags": ["Speech"],
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {
            "200": {"description": "The audio", "content": answer},
            "4XX": {"description": "The request is at fault", "content": _json("Error")},
            "5XX": {"description": "Not spoken; see `Retry-After`", "content": _json("Error")},
        },
    }


def _accept(summary: str, answer: str, *, lines: bool = False) -> dict[str, Any]:
    operation = _speak(summary, QueueBody, _json(answer))
    operation["tags"] = ["Jobs"]
    operation["responses"]["202"] = operation["responses"].pop("200") | {"description": "Accepted: it will not be lost"}
    if lines:
        # The description's language has no word for lines: each is one item.
        schema = {"type": "array", "minItems": 1, "items": {"$ref": _REFERENCE.format(model="QueueBody")}}
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
            "200": {"description": "As said", "content": content},
            "4XX": {"description": "No such job, or not in this state", "content": _json("Error")},
            "5XX": {"description": "Jobs cannot be looked up just now", "content": _json("Error")},
        },
    }


def _download() -> dict[str, Any]:
    operation = _job("The audio of a job that is done, in whole or in ranges", _audio())
    operation["responses"] |= {
        "206": {"description": "The ranges that were asked for"},
        "304": {"description": "The client has it already"},
        "416": {"description": "There is no such range"},
    }
    return operation


def _look(summary: str, tag: str = "Catalogue") -> dict[str, Any]:
    refused = {"description": "No valid key, or no such thing", "content": _json("Error")}
    return {"summary": summary, "tags": [tag], "responses": {"200": {"description": "As said"}, "4XX": refused}}


def _probe(summary: str) -> dict[str, Any]:
    operation = _look(summary, "Operations")
    operation["responses"]["503"] = {"description": "Nobody can speak now; `reason` says why"}
    return operation


def _audio() -> dict[str, Any]:
    return {audio_format.media_type: {} for audio_format in AudioFormat}


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REFERENCE.format(model=schema)}}}
