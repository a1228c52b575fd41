"""Recordings for reference clips: artificial speech, and files of any format, made by a real ffmpeg."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

RATE = 24_000


def speech(seconds: float, *, peak: float = 0.3, rate: int = RATE) -> NDArray[np.float32]:
    """The overtones of a voice in syllables, without a pause: all counts as speech. float32 mono at `rate`."""
    time = np.arange(round(seconds * rate)) / rate
    voice = sum(np.sin(2 * np.pi * 120 * overtone * time) / overtone for overtone in range(1, 20))
    syllables = np.where(time % 0.24 < 0.18, 1.0, 0.1)
    return np.asarray(peak * syllables * voice / np.abs(voice).max(), np.float32)


def noise(seconds: float, *, level: float = 0.05, rate: int = RATE) -> NDArray[np.float32]:
    """White noise of this RMS: float32 mono at `rate`."""
    return np.random.default_rng(0).normal(0, level, round(seconds * rate)).astype(np.float32)


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
