"""JSON responses about models, parameters and what the server can do."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from balancer.access.api_keys import Role
from balancer.api.models.camel_case import CAMEL_CASE
from worker.cards import Choice, Parameter


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

    model_config = CAMEL_CASE

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
