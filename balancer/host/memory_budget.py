"""The memory that workers need, and how many workers with how many slots fit into it; pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from balancer.cpu_lists import LayoutError
from balancer.host.wording import counted, gibibytes
from worker.cards import CARDS
from worker.options import EngineOptions

_MIN_RESERVE_BYTES = 512 * 2**20
_RESERVED_SHARE = 0.05


@dataclass(frozen=True)
class WorkerMemory:
    """The memory that workers of one engine need, in bytes."""

    private_bytes: int
    """Of each worker, without its slots."""
    shared_bytes: int = 0
    """Of all workers of the host together, whatever their number."""
    slot_bytes: int = 0
    """Of each slot of each worker; 0 if a worker synthesizes one utterance at a time."""
    default_slots: int = 1
    """Slots of a worker if neither the operator nor a calibration says otherwise."""

    @classmethod
    def of(cls, options: EngineOptions) -> Self:
        """Returns what the engine's card states for these options."""
        card, batched = CARDS[options.engine], options.batched
        if batched is None:
            return cls(card.resident_bytes, card.shared_bytes)
        private, slot = (sizes[options.precision] for sizes in (batched.resident_bytes, batched.slot_bytes))
        return cls(private, card.shared_bytes, slot, batched.slots)


@dataclass(frozen=True)
class MemoryBudget:
    """The memory of a host, shared between workers."""

    available_bytes: int
    worker: WorkerMemory

    @property
    def reserve_bytes(self) -> int:
        """Bytes that no worker may use: for the balancer, audio in transit and the rest of the system."""
        return max(_MIN_RESERVE_BYTES, math.ceil(_RESERVED_SHARE * self.available_bytes))

    @property
    def free_bytes(self) -> int:
        """Bytes for the private memory of all workers."""
        return max(0, self.available_bytes - self.reserve_bytes - self.worker.shared_bytes)

    def max_workers(self, slots: int) -> int:
        """The highest number of workers with `slots` slots each."""
        return self.free_bytes // self.worker_bytes(slots)

    def max_slots(self, workers: int) -> int:
        """The highest number of slots of each of `workers` workers.

        0 if not even one slot each fits; never more than 1 for an engine that synthesizes one utterance at a time.
        """
        if not self.worker.slot_bytes:
            return int(workers <= self.max_workers(1))
        return max(0, self.free_bytes // workers - self.worker.private_bytes) // self.worker.slot_bytes

    def check(self, workers: int, slots: int) -> None:
        """Raise LayoutError if `workers` workers with `slots` slots each do not fit."""
        if workers <= self.max_workers(slots):
            return
        needed = gibibytes(workers * self.worker_bytes(slots) + self.worker.shared_bytes + self.reserve_bytes)
        request = counted(workers, "worker") + (f" of {counted(slots, 'slot')}" if self.worker.slot_bytes else "")
        raise LayoutError(f"{request} would need {needed} of memory ({self}): {self._alternatives(workers, slots)}")

    def worker_bytes(self, slots: int) -> int:
        """The private memory of a worker with `slots` slots."""
        return self.worker.private_bytes + slots * self.worker.slot_bytes

    def _alternatives(self, workers: int, slots: int) -> str:
        alternatives = []
        if slots > 1 and (fewer := self.max_slots(workers)):
            alternatives.append(counted(fewer, "slot"))
        if fewer := self.max_workers(slots):
            alternatives.append(counted(fewer, "worker"))
        if not alternatives:
            return "free memory or run a smaller engine"
        return f"request at most {' or at most '.join(alternatives)}"

    def __str__(self) -> str:
        slot = f" and {gibibytes(self.worker.slot_bytes)} per slot" if self.worker.slot_bytes else ""
        shared = f", {gibibytes(self.worker.shared_bytes)} shared" if self.worker.shared_bytes else ""
        return (
            f"{gibibytes(self.worker.private_bytes)} per worker{slot}{shared}, "
            f"{gibibytes(self.available_bytes)} available, {gibibytes(self.reserve_bytes)} reserved"
        )
