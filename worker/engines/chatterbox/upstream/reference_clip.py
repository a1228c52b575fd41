"""A reference clip of any kind that voices may have, as samples that upstream can use."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from voices.clips import SUFFIXES, ClipError, inspect
from worker.engines.base import Samples, VoiceUnusableError

MOST_SECONDS = 60.0
"""What comes later in a clip is left out: upstream prompts with the first 10 to 15 s, and the rest only refines what
it knows of the speaker."""


def read_clip(path: Path) -> tuple[Samples, int]:
    """The clip as float32 mono, and its samples a second. Raises VoiceUnusableError where it cannot be used."""
    try:
        clip = inspect(path)
        with av.open(
            path, "r", options={"format_whitelist": ",".join(SUFFIXES)}, metadata_errors="ignore"
        ) as container:
            mono = av.AudioResampler(format="flt", layout="mono", rate=clip.sample_rate)
            pieces: list[Samples] = []
            missing = int(MOST_SECONDS * clip.sample_rate)
            for frame in container.decode(audio=0):
                pieces += (converted.to_ndarray()[0] for converted in mono.resample(frame))
                missing -= frame.samples
                if missing <= 0:
                    break
    except (ClipError, av.FFmpegError) as error:
        raise VoiceUnusableError(f"the reference clip cannot be used: {error}") from error
    return np.concatenate(pieces), clip.sample_rate
