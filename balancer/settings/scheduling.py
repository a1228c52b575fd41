"""The queue of utterances, and how long an attempt at one may take."""

from __future__ import annotations

from pydantic import Field

from balancer.settings.base import SettingsGroup


class SchedulingSettings(SettingsGroup):
    """The queue of utterances that wait for a slot."""

    title = "Scheduling"

    queue_limit: int = Field(
        1000,
        ge=1,
        description="Maximum number of queued utterances of each priority; above it the answer is 503.",
    )
    sjf_window: float = Field(
        1.75,
        ge=0,
        le=1000,
        description="Shortest job first, within a window: a text may overtake a longer one that arrived at most this "
        "many times the longer one's expected duration earlier; 0: each caller's texts go in order of arrival.",
    )
    batch_ageing_seconds: float = Field(
        60.0,
        ge=0,
        description="Seconds for which a batch utterance waits before every fourth turn goes to batch work.",
    )


class AttemptSettings(SettingsGroup):
    """When an attempt to synthesize an utterance has taken too long."""

    title = "Timeouts and hedging"

    attempt_seconds: float = Field(
        30.0,
        gt=0,
        description="Minimum time limit in seconds of one attempt, after which the utterance goes to another worker.",
    )
    attempt_factor: float = Field(
        10.0,
        ge=1,
        description="Time limit of one attempt as a multiple of the utterance's expected duration; the longer of the "
        "two limits counts.",
    )
    hedge_factor: float | None = Field(
        None,
        ge=1,
        description="Multiple of the expected duration after which an idle worker synthesizes the same utterance as "
        "well, if nothing is queued; unset: never.",
    )
