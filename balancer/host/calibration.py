"""A calibration: how fast workers of several configurations were on this host, and under which conditions; pure.

`chorus calibrate` makes one, `calibration_store` saves it, and `layout` uses it while the conditions are the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from math import inf

from pydantic import AwareDatetime, Field

from balancer.host.conditions import Conditions, FrozenModel
from balancer.host.wording import counted

DEFAULT_SLOTS = (1, 2, 4, 8, 16)
"""Slots per worker to measure, unless the operator says otherwise."""


class Objective(StrEnum):
    """What the workers of a host are to be best at."""

    THROUGHPUT = "throughput"
    LATENCY = "latency"


DEFAULT_THREADS = {Objective.THROUGHPUT: (1, 2, 4), Objective.LATENCY: (1, 2, 4, 8)}
"""Threads per worker to measure, unless the operator says otherwise: past four, throughput only loses."""

EQUAL_SPEED_SHARE = 0.97
"""Configurations with this share of the highest speed count as equally fast: two runs of one differ by as much."""
EQUAL_FIRST_SOUND = 1.1
"""Configurations whose first sound takes up to so many times the shortest are equally early: the fastest is best."""


class CalibrationConditions(Conditions):
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

    @property
    def file_stem(self) -> str:
        """The name, without suffix, of the file of a calibration under these conditions."""
        return f"{self.file_prefix}{hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]}"

    @property
    def file_prefix(self) -> str:
        """What the names of the files of all calibrations with the same `engine`, and of no others, start with."""
        return f"{re.sub(r'[^a-z0-9-]+', '_', self.engine)}."


class Measurement(FrozenModel):
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
    first_sound_seconds: float | None = Field(default=None, gt=0)
    """Median time to the first audio of streamed utterances, one at a time on the idle host; None: not measured."""

    @property
    def speed(self) -> float:
        """Audio seconds per second, of all workers together."""
        return self.audio_seconds / self.seconds

    def __str__(self) -> str:
        worker = f"{counted(self.threads, 'thread')} and {counted(self.slots, 'slot')}"
        first = "" if self.first_sound_seconds is None else f", first sound after {self.first_sound_seconds:.3g} s"
        return f"{counted(self.workers, 'worker')} of {worker}: {self.speed:.3g} audio seconds per second{first}"


class Calibration(FrozenModel):
    """The measurements under one set of conditions."""

    conditions: CalibrationConditions
    measured_at: AwareDatetime
    measurements: tuple[Measurement, ...] = Field(min_length=1)
    objective: Objective = Objective.THROUGHPUT

    @property
    def ranked(self) -> tuple[Measurement, ...]:
        """The measurements, best first.

        For throughput the fastest; among equally fast ones those with fewer slots, whose latency is lower. For latency
        those with the earliest first sound; among equally early ones as for throughput.
        """
        if self.objective is Objective.THROUGHPUT:
            return tuple(_fastest_first(self.measurements))
        early = earliest(self.measurements)
        late = [measurement for measurement in self.measurements if measurement not in early]
        return *_fastest_first(early), *sorted(late, key=_first_sound)


def _first_sound(measurement: Measurement) -> float:
    return inf if measurement.first_sound_seconds is None else measurement.first_sound_seconds


def _fastest_first(measurements: Sequence[Measurement]) -> list[Measurement]:
    fastest = max(measurement.speed for measurement in measurements)

    def rank(measurement: Measurement) -> tuple[float, int, int]:
        speed = measurement.speed
        return (-fastest if speed >= EQUAL_SPEED_SHARE * fastest else -speed, measurement.slots, measurement.threads)

    return sorted(measurements, key=rank)


def earliest(measurements: Iterable[Measurement]) -> list[Measurement]:
    """Returns those with the earliest first sound, as far as `EQUAL_FIRST_SOUND` makes a difference."""
    found = list(measurements)
    limit = EQUAL_FIRST_SOUND * min(map(_first_sound, found))
    return [measurement for measurement in found if _first_sound(measurement) <= limit]


def default_threads(objective: Objective, max_threads: int) -> Sequence[int]:
    """Returns the threads per worker to measure on a host that has at most `max_threads` for a worker."""
    return [threads for threads in DEFAULT_THREADS[objective] if threads <= max_threads]


def probes(configurations: Iterable[tuple[int, int]], slots: int) -> Sequence[tuple[int, int]]:
    """Returns for each number of threads the configuration (threads, slots) with the slots closest to `slots`.

    The first sound on an idle host depends on the threads: only those with the earliest need the other slots measured.
    """
    found: dict[int, tuple[int, int]] = {}
    for one in configurations:
        best = found.setdefault(one[0], one)
        if abs(one[1] - slots) < abs(best[1] - slots):
            found[one[0]] = one
    return list(found.values())


def worker_configurations(threads: Iterable[int], slots: Iterable[int]) -> Sequence[tuple[int, int]]:
    """Returns every pair (threads, slots) once, in ascending order."""
    return [(each_threads, each_slots) for each_threads in sorted(set(threads)) for each_slots in sorted(set(slots))]
