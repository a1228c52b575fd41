"""What workers take of memory, and how many workers of how many slots it holds; pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from balancer.cpu_lists import LayoutError
from balancer.host.wording import counted, gibibytes
from worker.cards import EngineCard, Runtime
from worker.precision import Precision

_LEAST_RESERVE_BYTES = 512 * 2**20
_RESERVED_SHARE = 0.05


@dataclass(frozen=True)
class WorkerMemory:
    """What workers of an engine, run in one way, take of memory, in bytes."""

    each: int
    """Of every worker, beside its slots."""
    shared: int = 0
    """Of all workers together, however many they are."""
    slot: int = 0
    """Of every slot of every worker; 0 where a worker speaks one utterance at a time."""
    slots: int = 1
    """Slots of a worker where nothing else is known."""

    @classmethod
    def of(cls, card: EngineCard, runtime: Runtime, precision: Precision) -> Self:
        """What the card says of an engine that is run so."""
        batched = card.under(runtime)
        if batched is None:
            return cls(card.resident_bytes, card.shared_bytes)
        return cls(batched.resident_bytes[precision], card.shared_bytes, batched.slot_bytes, batched.slots)


@dataclass(frozen=True)
class MemoryBudget:
    """How many workers of how many slots memory holds."""

    available: int
    demand: WorkerMemory

    @property
    def reserve(self) -> int:
        """Bytes that no worker may count on: the balancer, audio under way, the rest of the system."""
        return max(_LEAST_RESERVE_BYTES, math.ceil(_RESERVED_SHARE * self.available))

    @property
    def free(self) -> int:
        """Bytes for the workers' own."""
        return max(0, self.available - self.reserve - self.demand.shared)

    def workers(self, slots: int) -> int:
        """Most workers of so many slots."""
        return self.free // self.worker_bytes(slots)

    def slots(self, workers: int) -> int:
        """Most slots of so many workers; 0 where not even one each fits, 1 where a worker has no more."""
        if not self.demand.slot:
            return int(workers <= self.workers(1))
        return max(0, self.free // workers - self.demand.each) // self.demand.slot

    def check(self, workers: int, slots: int) -> None:
        """Raise LayoutError where so many workers of so many slots do not fit."""
        if workers <= self.workers(slots):
            return
        need = gibibytes(workers * self.worker_bytes(slots) + self.demand.shared + self.reserve)
        what = counted(workers, "worker") + (f" of {counted(slots, 'slot')}" if self.demand.slot else "")
        raise LayoutError(f"{what} would need {need} of memory ({self}): {self._way_out(workers, slots)}")

    def worker_bytes(self, slots: int) -> int:
        """What a worker of so many slots takes for itself."""
        return self.demand.each + slots * self.demand.slot

    def _way_out(self, workers: int, slots: int) -> str:
        ways = []
        if slots > 1 and (fewer := self.slots(workers)):
            ways.append(f"ask for at most {counted(fewer, 'slot')}")
        if fewer := self.workers(slots):
            ways.append(f"ask for at most {counted(fewer, 'worker')}")
        return " or ".join(ways) or "free memory or run a smaller engine"

    def __str__(self) -> str:
        slot = f" and {gibibytes(self.demand.slot)} a slot" if self.demand.slot else ""
        shared = f", {gibibytes(self.demand.shared)} shared" if self.demand.shared else ""
        return (
            f"{gibibytes(self.demand.each)} each{slot}{shared}, {gibibytes(self.available)} available, "
            f"{gibibytes(self.reserve)} kept in reserve"
        )
