"""The protocol by which a long text's finished segments are kept: each is spoken once, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol

from balancer.audio.buffers import AudioBuffer


class SegmentKeeper(Protocol):
    """Keeps the segments of one text, which are numbered from 0."""

    @property
    def stops(self) -> bool:
        """Whether no further segment is to be begun."""

    async def begin(self, segmentation: str, total: int) -> Collection[int]:
        """The segments that are kept already of a text of `total`; those of another segmentation are dropped.

        `segmentation` is a digest of all that determines their PCM.
        """

    async def keep(self, number: int, pcm: AudioBuffer) -> None:
        """Keep a segment; empty PCM stands for one that cannot be spoken."""

    async def files(self) -> Sequence[Path]:
        """The kept segments, all of them, in their order."""
