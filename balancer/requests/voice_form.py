"""The fields of a form that adds a voice. What needs the folder of voices, or the recording, is checked later."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from balancer.requests.bodies import printable
from voices.registry import Consent

MAX_ALIASES = 50

Prose = Annotated[str, Field(max_length=1000), BeforeValidator(printable), AfterValidator(str.strip)]


class VoiceForm(BaseModel):
    """The form of `POST /v1/audio/voices`, beside its recording."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(max_length=200, description="Name of the voice: any line of text.")]
    consent: Annotated[
        Prose,
        Field(
            description="Who agreed to the cloning of this voice, and how; recorded with the voice. Required unless "
            "`synthetic` is true."
        ),
    ] = ""
    consent_date: Annotated[date | None, Field(description="Date of the consent; today if omitted.")] = None
    synthetic: Annotated[bool, Field(description="Whether the voice is not a person's.")] = False
    description: Annotated[Prose, Field(description="Description of its sound.")] = ""
    language: Annotated[str, Field(max_length=50, description="Its language, such as en or pt-BR.")] = "en"
    aliases: Annotated[
        tuple[str, ...],
        Field(max_length=MAX_ALIASES, description="Other names for it; the field is repeated for each."),
    ] = ()
    replace: Annotated[bool, Field(description="Whether an existing voice of that name is replaced.")] = False

    @model_validator(mode="after")
    def _consent_on_record(self) -> Self:
        if not self.consent and not self.synthetic:
            raise ValueError(
                "cloning a person's voice needs their consent: record who gave it, and how, in the field `consent` "
                '("Ada Lovelace, by e-mail"), or send synthetic=true if the voice is not a person\'s'
            )
        if self.consent_date is not None and not self.consent:
            raise ValueError("consent_date needs consent")
        return self

    def consent_on(self, today: date) -> Consent | None:
        """The consent to record, given `today` if the form has no date; None for a synthetic voice without one."""
        if not self.consent:
            return None
        return Consent(given_by=self.consent, given_on=self.consent_date or today)
