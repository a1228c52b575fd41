"""A calibration: how fast workers of several configurations were on this host, and under which conditions; pure.

`chorus calibrate` makes one, `calibration_store` saves it, and `layout` uses it while the conditions are the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from balancer.host.wording import counted

DEFAULT_SLOTS = (1, 2, 4, 8, 16)
"""Slots per worker to measure, unless the operator says otherwise."""
DEFAULT_THREADS = (1, 2, 4)
"""Threads per worker to measure, unless the operator says otherwise."""

EQUAL_SPEED_SHARE = 0.97
"""Configurations with this share of the highest speed count as equally fast: two runs of one differ by as much."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Conditions(_Frozen):
    """The conditions that a calibration was measured under; it is valid under the same ones only."""

    engine: str
    """Label of the engine and its options: see `EngineOptions.label`."""
    weights: str
    """Fingerprint of the checkpoint and of the code that runs it: see `worker.checkpoints.fingerprint`."""
    processor: str
    cores: int
    """Physical cores that may be used."""
    quota: float | None
    """CPUs of the cgroup quota, if it is the tighter limit."""

    def differences(self, other: Conditions) -> tuple[str, ...]:
        """Returns the names of the conditions that are different in `other`."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) != getattr(other, name))

    @property
    def file_stem(self) -> str:
        """The name, without suffix, of the file of a calibration under these conditions."""
        return f"{self.file_prefix}{hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]}"

    @property
    def file_prefix(self) -> str:
        """What the names of the files of all calibrations with the same `engine`, and of no others, start with."""
        return f"{re.sub(r'[^a-z0-9-]+', '_', self.engine)}."


class Measurement(_Frozen):
    """All workers of one configuration, synthesizing at once with every slot in use."""

    threads: int = Field(ge=1)
    """Of each worker."""
    slots: int = Field(ge=1)
    """Of each worker."""
    workers: int = Field(ge=1)
    utterances: int = Field(ge=1)
    """Of all workers together."""
    audio_seconds: float = Field(gt=0)
    seconds: float = Field(gt=0)
    """From the start of the first utterance to the end of the last."""
    answer_seconds: float = Field(gt=0)
    """Median latency of the utterances, each from the request to a free slot until all of its audio has arrived."""
    worker_bytes: int = Field(ge=0)
    """Private memory of the largest worker at the end."""

    @property
    def speed(self) -> float:
        """Audio seconds per second, of all workers together."""
        return self.audio_seconds / self.seconds

    def __str__(self) -> str:
        worker = f"{counted(self.threads, 'thread')} and {counted(self.slots, 'slot')}"
        return f"{counted(self.workers, 'worker')} of {worker}: {self.speed:.3g} audio seconds per second"


class Calibration(_Frozen):
    """The measurements under one set of conditions."""

    conditions: Conditions
    measured_at: AwareDatetime
    measurements: tuple[Measurement, ...] = Field(min_length=1)

    @property
    def ranked(self) -> tuple[Measurement, ...]:
        """The measurements, best first: among equally fast ones those with fewer slots, whose latency is lower."""
        fastest = max(measurement.speed for measurement in self.measurements)
        return tuple(sorted(self.measurements, key=lambda measurement: _rank(measurement, fastest)))


def _rank(measurement: Measurement, fastest: float) -> tuple[float, int, int]:
    speed = measurement.speed
    return (-fastest if speed >= EQUAL_SPEED_SHARE * fastest else -speed, measurement.slots, measurement.threads)


def worker_configurations(threads: Iterable[int], slots: Iterable[int]) -> Sequence[tuple[int, int]]:
    """Returns every pair (threads, slots) once, in ascending order."""
    return [(each_threads, each_slots) for each_threads in sorted(set(threads)) for each_slots in sorted(set(slots))]
