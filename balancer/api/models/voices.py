"""JSON responses about voices."""

from __future__ import annotations

from datetime import date
from math import isfinite
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from balancer.api.models.camel_case import CAMEL_CASE
from balancer.operations.voice_library import InspectedVoice
from voices.clips import Check, Clip, Subject, checks
from voices.registry import Consent, Voice


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

    model_config = CAMEL_CASE

    given_by: Annotated[str, Field(description="Who agreed, and how.")]
    given_on: date
    note: str

    @classmethod
    def of(cls, consent: Consent) -> ConsentRecord:
        """The record of a consent."""
        return cls(given_by=consent.given_by, given_on=consent.given_on, note=consent.note)


class ClipReport(BaseModel):
    """Measurements of a recording."""

    model_config = CAMEL_CASE

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
