"""The two priorities of an utterance."""

from __future__ import annotations

from enum import StrEnum


class Priority(StrEnum):
    """Decides which utterances are dispatched first."""

    INTERACTIVE = "interactive"  # a client waits for the answer
    BATCH = "batch"  # uses the slots that interactive work leaves free

    def precedes(self, other: Priority) -> bool:
        """Whether work of this priority goes before work of the other."""
        return self is Priority.INTERACTIVE and other is Priority.BATCH
