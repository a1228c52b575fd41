"""The two priorities of an utterance."""

from __future__ import annotations

from enum import StrEnum


class Priority(StrEnum):
    """Who goes first."""

    INTERACTIVE = "interactive"  # somebody waits for it
    BATCH = "batch"  # takes what interactive work leaves over
