"""All that was measured of one server, in a JSON file, from which a later run goes on."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import AwareDatetime, ValidationError

from balancer.capacity.search import Search, TriedRate
from balancer.capacity.service_model import Level, ServiceModel
from balancer.capacity.simulated_host import HostSize
from balancer.capacity.step import Step
from balancer.capacity.target import Target
from balancer.host.conditions import Conditions, FrozenModel


class StudyError(ValueError):
    """A file with a study cannot be read, or does not fit; the message says why."""


class StudyConditions(Conditions):
    """What is measured, and how. A study goes on under the same conditions only."""

    url: str
    target: Target
    step_seconds: float
    texts: str
    """The file of the texts with its digest, or `mix`."""
    voice: str | None
    seed: int


class HostFacts(FrozenModel):
    """The measured server and its machine."""

    engine: str
    workers: int
    slots: int
    """Of all workers together."""
    cpus: int
    """CPUs (vCPU) of the machine that the server may use."""
    processor: str

    @property
    def size(self) -> HostSize:
        """The workers and the slots of each."""
        return HostSize(self.workers, max(1, self.slots // self.workers))


class Study(FrozenModel):
    """The measurements of one server so far."""

    begun_at: AwareDatetime
    conditions: StudyConditions
    host: HostFacts
    levels: tuple[Level, ...] = ()
    balancer_seconds: float | None = None
    """CPU seconds of the balancer for an utterance."""
    cached_rate: float | None = None
    """Requests per second that are answered from the cache; 0: there is no cache. None: not measured yet."""
    steps: tuple[Step, ...] = ()
    done: bool = False
    """Whether the knee has been found."""

    @property
    def tried_rates(self) -> list[TriedRate]:
        """The steps as the search sees them."""
        return [TriedRate(step.rate, not self.conditions.target.broken_by(step)) for step in self.steps]

    @property
    def knee(self) -> Step | None:
        """The step of the highest rate that kept the target; None if none has."""
        rate = Search(1.0).knee(self.tried_rates)
        return next((step for step in self.steps if step.rate == rate), None)

    @property
    def model(self) -> ServiceModel | None:
        """The times of the host; None if they have not been measured."""
        if not self.levels or not all(level.totals.utterances for level in self.levels):
            return None
        return ServiceModel.of(self.levels, self.host.slots, self.balancer_seconds or 0.0)

    def save(self, file: Path) -> None:
        """Write it atomically. Raises OSError."""
        temporary = file.with_name(f"{file.name}.{os.getpid()}")
        try:
            temporary.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, file: Path) -> Study:
        """The study in a file. Raises StudyError."""
        try:
            return cls.model_validate_json(file.read_bytes())
        except OSError as error:
            raise StudyError(f"cannot read {file}: {error.strerror}") from error
        except ValidationError as error:
            raise StudyError(f"{file} has no study of `chorus capacity` of this version") from error
