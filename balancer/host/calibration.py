"""What a calibration is: how fast this host spoke with workers of several shapes, and under which conditions; pure.

`chorus calibrate` makes one, `calibration_files` keeps it, and `layout` goes by it where the conditions are still so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from balancer.host.wording import counted
from worker.cards import PROMPT_SECONDS, Runtime
from worker.precision import Precision

DEFAULT_SLOTS = (1, 2, 4, 8, 16)
DEFAULT_THREADS = (1, 2, 4)
"""What is tried unless the operator says otherwise."""

EQUAL_SPEED_SHARE = 0.97
"""Shapes of this share of the highest speed count as equal to it: two runs of one shape differ by as much."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Conditions(_Part):
    """What a calibration holds for, and for nothing else."""

    engine: str
    runtime: Runtime
    precision: Precision
    prompt_seconds: int = PROMPT_SECONDS
    weights: str
    """Fingerprint of the checkpoint and of the code that runs it: see `cache.sounds.fingerprint`."""
    processor: str
    cores: int
    """Physical cores that may be used."""
    quota: float | None
    """CPUs, where a quota binds."""

    def differences(self, other: Conditions) -> tuple[str, ...]:
        """Names of what is not the same in `other`."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) != getattr(other, name))

    @property
    def name(self) -> str:
        """A file name of their own; those of one engine, runtime and precision begin alike."""
        return f"{self.prefix}{hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]}"

    @property
    def prefix(self) -> str:
        """What the names of all calibrations of this engine, runtime and precision begin with."""
        return f"{self.engine}_{self.runtime}_{self.precision}_"


class Measurement(_Part):
    """All workers of one shape, speaking at once with every slot taken."""

    threads: int = Field(ge=1)
    """Of each worker."""
    slots: int = Field(ge=1)
    """Of each worker."""
    workers: int = Field(ge=1)
    utterances: int = Field(ge=1)
    """Spoken by all workers together."""
    audio_seconds: float = Field(gt=0)
    seconds: float = Field(gt=0)
    """From the first word to the last."""
    answer_seconds: float = Field(gt=0)
    """Median of the utterances' own times, each from when it was sent to a free slot until its audio was there."""
    worker_bytes: int = Field(ge=0)
    """Memory that the largest worker had for itself after that."""

    @property
    def speed(self) -> float:
        """Audio seconds a second, of all workers together."""
        return self.audio_seconds / self.seconds

    def __str__(self) -> str:
        shape = (
            f"{counted(self.workers, 'worker')} of {counted(self.threads, 'thread')} and {counted(self.slots, 'slot')}"
        )
        return f"{shape}: {self.speed:.3g} audio seconds a second"


class Calibration(_Part):
    """What was measured, under one set of conditions."""

    conditions: Conditions
    measured_at: AwareDatetime
    measurements: tuple[Measurement, ...] = Field(min_length=1)

    @property
    def ranked(self) -> tuple[Measurement, ...]:
        """Best first. Of those as fast as the fastest, fewer slots come first: their answers come sooner."""
        fastest = max(measurement.speed for measurement in self.measurements)
        return tuple(sorted(self.measurements, key=lambda one: _rank(one, fastest)))


def _rank(measurement: Measurement, fastest: float) -> tuple[float, int, int]:
    speed = measurement.speed
    return (-fastest if speed >= EQUAL_SPEED_SHARE * fastest else -speed, measurement.slots, measurement.threads)


def worker_configurations(threads: Iterable[int], slots: Iterable[int]) -> Sequence[tuple[int, int]]:
    """Every pair of threads and slots, each once, the smallest first."""
    return [(each, many) for each in sorted(set(threads)) for many in sorted(set(slots))]
