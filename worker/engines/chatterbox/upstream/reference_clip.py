"""Reads a voice's reference clip, in any format that voices may have, as samples."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from voices.clips import SUFFIXES, ClipError, inspect
from voices.downmix import Downmix
from worker.engines.base import Samples, VoiceUnusableError

MAX_SECONDS = 60.0
"""Seconds of a clip that are read, at most: upstream prompts with the first 10 to 15 s, and takes only the speaker's
embedding from the rest."""


def read_clip(path: Path) -> tuple[Samples, int]:
    """The clip as float32 mono, and its sample rate. Raises VoiceUnusableError where it cannot be used."""
    try:
        clip = inspect(path)
        with av.open(
            path, "r", options={"format_whitelist": ",".join(SUFFIXES)}, metadata_errors="ignore"
        ) as container:
            downmix = Downmix()
            chunks: list[Samples] = []
            remaining = int(MAX_SECONDS * clip.sample_rate)
            for frame in container.decode(audio=0):
                chunks += (mono for _, mono in downmix.mix(frame))
                remaining -= frame.samples
                if remaining <= 0:
                    break
    except (ClipError, av.FFmpegError) as error:
        reason = str(error).replace(str(path), path.name)  # clients read it
        raise VoiceUnusableError(f"the reference clip cannot be used: {reason}") from error
    return np.concatenate(chunks), clip.sample_rate
