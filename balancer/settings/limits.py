"""How much a request and a caller may ask for, and how much memory the audio takes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from balancer.settings.base import MIB, SettingsGroup

PROGRAM_MIB = 384
"""Memory of the balancer without the audio that it counts: the program, connections, and what is being synthesized,
encoded and read."""


class LimitSettings(SettingsGroup):
    """Limits of a single request."""

    title = "Request limits"

    max_text_characters: int = Field(
        5000, ge=1, le=1_000_000, description="Maximum length of a request's text in characters."
    )
    max_job_text_characters: int = Field(
        200_000,
        ge=1,
        le=1_000_000,
        description="Maximum length of a job's text in characters; never less than that of a request.",
    )
    max_body_bytes: int = Field(
        262_144,
        ge=1024,
        description="Maximum size of a request body in bytes; `POST /queue` takes 6 more for each character that only "
        "a job's text may have.",
    )
    max_batch_bytes: int = Field(
        8_388_608, ge=1024, description="Maximum size of the body of `POST /queue/batch` in bytes."
    )
    max_batch_lines: int = Field(
        10_000,
        ge=1,
        description="Maximum number of lines in the body of `POST /queue/batch`; above it the answer is 413.",
    )
    request_timeout: float = Field(
        300.0,
        gt=0,
        description="Maximum duration of a request in seconds, waiting included; after that the answer is 504.",
    )

    @property
    def job_text_characters(self) -> int:
        """Maximum length of a job's text in characters."""
        return max(self.max_text_characters, self.max_job_text_characters)

    @property
    def job_body_bytes(self) -> int:
        """Maximum size of the body of `POST /queue`: an escaped character of JSON has 6 bytes."""
        return self.max_body_bytes + 6 * (self.job_text_characters - self.max_text_characters)


class MemorySettings(SettingsGroup):
    """How much audio may be under way, and who encodes it."""

    title = "Memory and encoding"

    memory_mib: int = Field(
        1024,
        ge=PROGRAM_MIB + 64,
        description=f"Memory in MiB that the balancer is planned to take at most: {PROGRAM_MIB} for the program, the "
        "rest for bodies and audio under way. Large audio, and what is past that, lies in temporary files "
        "(in `TMPDIR`).",
    )
    spool_mib: int = Field(
        4096, ge=256, description="Maximum size of these temporary files in MiB; above it the answer is 503."
    )
    memory_caller_percent: int = Field(
        25,
        ge=1,
        le=100,
        description="Share of that memory, and of these files, that one caller may take, in percent.",
    )
    json_audio_mib: int = Field(
        32,
        ge=1,
        description="Maximum audio in MiB that `POST /tts-json` returns within JSON; above it the answer is 413.",
    )
    encoder_threads: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Threads that encode audio; unset: one less than the balancer has CPUs, at least 1 and at most 8.",
    )

    @property
    def audio_memory_bytes(self) -> int:
        """Bytes of audio that may be held in memory."""
        return (self.memory_mib - PROGRAM_MIB) * MIB

    @property
    def spool_bytes(self) -> int:
        """Bytes of audio that may be held in temporary files."""
        return self.spool_mib * MIB

    @property
    def caller_share(self) -> float:
        """The part of either that one caller may take."""
        return self.memory_caller_percent / 100

    @property
    def json_audio_bytes(self) -> int:
        """Bytes of audio that JSON may contain."""
        return self.json_audio_mib * MIB


class RateLimitSettings(SettingsGroup):
    """How much one caller may ask for. An API key's own limits replace these."""

    title = "Rate limits"

    rate_requests_per_minute: int | None = Field(
        None,
        ge=1,
        description="Maximum requests per minute of each caller, which is an API key or, without keys, a client "
        "address; unset: unlimited.",
    )
    rate_interval_seconds: int | None = Field(
        None, ge=1, description="Minimum seconds between two requests of a caller; unset: none."
    )
    rate_characters_per_minute: int | None = Field(
        None, ge=1, description="Maximum characters of text per minute of each caller; unset: unlimited."
    )
    rate_concurrency: int | None = Field(
        None, ge=1, description="Maximum requests that a caller may have in flight at once; unset: unlimited."
    )
    rate_mode: Literal["reject", "shape"] = Field(
        "reject",
        description="What happens to a request over a limit: `reject` answers 429, `shape` holds it until it is "
        "within the limit.",
    )
    rate_without_redis: Literal["local", "open", "closed"] = Field(
        "local",
        description="What happens while Redis, which counts for the limits, is unavailable, full or read-only: `local` "
        "counts on each host alone, `open` serves without limits, `closed` answers 503.",
    )
