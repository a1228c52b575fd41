"""How many workers run, how it is noticed that one is gone, and when one is replaced."""

from __future__ import annotations

from pydantic import Field, field_validator

from balancer.cpu_lists import parse_cores
from balancer.settings.base import MIB, SettingsGroup


class LayoutSettings(SettingsGroup):
    """How many workers run, and on which CPUs. `chorus serve` chooses what is unset."""

    title = "Workers"

    workers: int | None = Field(
        None, ge=1, le=1024, description="Number of worker processes; unset: chosen for the host."
    )
    threads: int | None = Field(None, ge=1, le=256, description="Threads of each worker; unset: chosen for the host.")
    slots: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Utterances that each worker synthesizes at once in the batched runtime; unset: chosen for the "
        "host.",
    )
    cores: str | None = Field(
        None,
        description="CPUs of each worker, workers separated by semicolons, such as `0-1;2-3`; unset: chosen for the "
        "host.",
    )

    @field_validator("cores")
    @classmethod
    def _parses(cls, cores: str | None) -> str | None:
        if cores is not None:
            parse_cores(cores)
        return cores


class ProbeSettings(SettingsGroup):
    """How the balancer notices that a worker is gone or hangs."""

    title = "Worker health"

    probe_seconds: float = Field(0.5, gt=0, le=60, description="Interval between two probes of a worker in seconds.")
    probe_timeout: float = Field(2.0, gt=0, le=60, description="Seconds after which an unanswered probe has failed.")
    probe_failures: int = Field(3, ge=1, description="Consecutive failed probes after which a worker counts as gone.")
    recovery_seconds: float = Field(
        5.0,
        ge=0,
        description="Seconds for which requests wait for a worker to return when none is left; after that the answer "
        "is 503.",
    )
    unresponsive_seconds: float = Field(
        10.0,
        gt=0,
        description="Seconds without a valid answer after which the balancer kills a worker process, so that it is "
        "restarted.",
    )
    ejection_failures: int = Field(
        3,
        ge=0,
        description="Failed attempts, on utterances that succeeded elsewhere, from which a worker is restarted if they "
        "are half of its latest 20; 0: never. At least half of the other workers serve meanwhile.",
    )
    watchdog_seconds: float = Field(
        60.0, ge=0, description="Seconds without progress in its model after which a worker ends itself; 0: never."
    )


class RecyclingSettings(SettingsGroup):
    """When a worker that still works is replaced, one worker at a time."""

    title = "Worker recycling"

    recycle_utterances: int | None = Field(
        None, ge=1, description="Number of utterances after which a worker is replaced; unset: never."
    )
    recycle_mib: int | None = Field(
        None,
        ge=1,
        description="Memory of its own in MiB, shared weights not counted, above which a worker is replaced; unset: "
        "never.",
    )

    @property
    def recycle_bytes(self) -> int | None:
        """`recycle_mib` in bytes."""
        return None if self.recycle_mib is None else self.recycle_mib * MIB
