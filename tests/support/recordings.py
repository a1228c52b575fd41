"""Recordings for reference clips: artificial speech, and files of any format, made by a real ffmpeg."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

RATE = 24_000


def speech(seconds: float, *, peak: float = 0.3, rate: int = RATE) -> NDArray[np.float32]:
    """The overtones of a voice without a pause, all of which counts as speech: float32 mono at `rate`."""
    time = np.arange(round(seconds * rate)) / rate
    voice = sum(np.sin(2 * np.pi * 120 * overtone * time) / overtone for overtone in range(1, 20))
    return np.asarray(peak * voice / np.abs(voice).max(), np.float32)


def silence(seconds: float, *, rate: int = RATE) -> NDArray[np.float32]:
    """Silence: float32 mono at `rate`."""
    return np.zeros(round(seconds * rate), np.float32)


def record(path: Path, *sounds: NDArray[np.float32], rate: int = RATE, options: tuple[str, ...] = ()) -> Path:
    """Write the sounds, one after another, to a file in the format of its suffix, or of the `options` for ffmpeg."""
    source = ["-f", "f32le", "-ar", str(rate), "-ac", "1", "-i", "-"]
    subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", *source, *options, path],
        check=True,
        input=np.concatenate(sounds).tobytes(),
    )
    return path
