"""Looks at a reference clip: whether it can be decoded, and whether its sound is good enough to clone a voice from.

Used when a voice is added, and by whoever wants to know why one does not sound as it should. Only numbers are kept
of the sound, so that a recording of any length can be looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log10
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

Planes = NDArray[np.float32]
"""Samples of shape (channels, samples), in [-1, 1] unless the recording goes beyond."""

SUFFIXES = {"wav": ".wav", "mp3": ".mp3", "flac": ".flac", "ogg": ".ogg", "mov": ".m4a"}
"""Kinds of file that are taken, by their name in ffmpeg, each with the ending of its own. A playlist or a
description of other files is none of them: no clip leads elsewhere."""
KINDS = "wav, mp3, flac, ogg (Vorbis or Opus) or m4a"

LEAST_SPEECH_SECONDS = 5.0
"""The engines refuse shorter clips, or clone them badly."""
USED_SECONDS = 15.0
"""The engines hear no more than the first 10 to 15 s of a clip."""
LOOK_SECONDS = 600.0
"""What comes later in a clip is not looked at."""
LEAST_SAMPLE_RATE = 16_000
"""In Hz. The engines hear the speaker at this rate; below it the upper consonants are missing."""
QUIET_DBFS = -40.0
"""Speech below this level is too near to its recording's noise."""
SILENCE_DBFS = -60.0
"""What is below this level is no speech."""
FULL_SCALE = 0.99
"""A sample that reaches this counts as clipped; an encoder may have rounded it down from 1."""
MOST_CLIPPED = 0.001
"""Greatest share of clipped samples: a loud recording touches full scale now and then."""

FRAME_SECONDS = 0.03
"""Length of the frames that are speech or not."""
DYNAMIC_DB = 30.0
"""A frame is speech where it is at most this much below the loudest second of the clip."""

_EXACT_LENGTH = ("flac", "mov")
"""Kinds whose header tells the length exactly; of the others it is an estimate, or goes by what is there."""
_TOLERANCE_SECONDS = 0.1
"""An encoder's padding may or may not be told with the length."""


class ClipError(ValueError):
    """A file that cannot be a reference clip; the message names it and what is wrong with it."""


@dataclass(frozen=True)
class Clip:
    """What was measured of a clip, or of its first LOOK_SECONDS.

    Speech is measured by energy alone: the clip is cut into frames of FRAME_SECONDS, and a frame counts as speech if
    it is above SILENCE_DBFS and at most DYNAMIC_DB below what the loudest second's worth of frames reaches, wherever
    they lie. So pauses do not count, a click does not drown the rest, but music or steady noise passes for speech.
    """

    suffix: str
    """Ending that tells the file's kind, by its content: `.wav`, `.mp3`, `.flac`, `.ogg` or `.m4a`."""
    sample_rate: int
    """In Hz."""
    seconds: float
    """Length, LOOK_SECONDS at most."""
    speech_seconds: float
    """Of all of it."""
    used_speech_seconds: float
    """Of its first USED_SECONDS."""
    level: float
    """RMS of the speech in dBFS, bangs that are louder than the loudest second aside; -inf where there is none."""
    peak: float
    """Greatest magnitude in any channel; 1 is full scale."""
    clipped: float
    """Share of samples at full scale in any channel, in [0, 1]."""


def inspect(path: Path) -> Clip:
    """Decode a clip and measure it. Raises ClipError where it is no audio, of another kind, empty or garbled."""
    if not path.is_file():
        raise ClipError(f"there is no file {path}")
    try:
        path.open("rb").close()  # ffmpeg's errors do not tell what cannot be read from what makes no sense
        return _measure(path)
    except av.FFmpegError as error:
        raise ClipError(f"{path} cannot be decoded: it must be a whole file of {KINDS}") from error
    except OSError as error:
        raise ClipError(f"cannot read {path}: {error.strerror}") from error


def faults(clip: Clip) -> tuple[str, ...]:
    """Everything that keeps a clip from being cloned well, each with its mend; none where it will do."""
    found = []
    if clip.level == -inf:
        found.append("it is silent: record it again, with the microphone on")
    elif clip.speech_seconds < LEAST_SPEECH_SECONDS:
        found.append(
            f"it has {clip.speech_seconds:.1f} s of speech, and {LEAST_SPEECH_SECONDS:g} s are the least: "
            f"record 10 to {USED_SECONDS:g} s"
        )
    elif clip.used_speech_seconds < LEAST_SPEECH_SECONDS:
        found.append(
            f"only {clip.used_speech_seconds:.1f} s of its speech lie in its first {USED_SECONDS:g} s, which alone "
            f"are used, and {LEAST_SPEECH_SECONDS:g} s are the least: cut off what comes before the speech"
        )
    if -inf < clip.level < QUIET_DBFS:
        found.append(
            f"it is too quiet, {clip.level:.0f} dBFS where {QUIET_DBFS:g} is the least: "
            "record it again, closer to the microphone"
        )
    if clip.clipped > MOST_CLIPPED:
        found.append(
            f"it is clipped, {clip.clipped:.1%} of its samples are at full scale: record it again, with less gain"
        )
    if clip.sample_rate < LEAST_SAMPLE_RATE:
        found.append(
            f"its sample rate is {clip.sample_rate} Hz, and {LEAST_SAMPLE_RATE} Hz is the least: record it again at "
            "24000 Hz or more (converting it brings nothing back)"
        )
    return tuple(found)


def notes(clip: Clip) -> tuple[str, ...]:
    """What is worth knowing of a clip, though it will do."""
    if clip.seconds < LOOK_SECONDS:
        return ()
    return (f"it lasts {LOOK_SECONDS / 60:g} minutes or more, and only its first 10 to {USED_SECONDS:g} s are used",)


def _measure(path: Path) -> Clip:
    with av.open(
        f"file:{path}", options={"format_whitelist": ",".join(SUFFIXES)}, metadata_errors="ignore"
    ) as container:
        kind = container.format.name.partition(",")[0]
        if not container.streams.audio:
            raise ClipError(f"{path} holds no sound: it must be a whole file of {KINDS}")
        meter: _Meter | None = None
        to_floats = av.AudioResampler(format="fltp")  # of the same rate and channels
        for frame in container.decode(audio=0):
            shape = (frame.sample_rate, frame.layout.name)
            if meter is None:
                meter, first = _Meter(frame.sample_rate), shape
            if shape != first:
                raise ClipError(f"{path} changes its sample rate or channels midway: save it anew")
            for converted in to_floats.resample(frame):
                planes = converted.to_ndarray().astype(np.float32, copy=False)
                if not np.isfinite(planes).all():
                    raise ClipError(f"{path} is garbled: some of its samples are no numbers")
                meter.add(planes)
            if meter.seconds >= LOOK_SECONDS:
                break
        declared = (container.duration or 0) / av.time_base if kind in _EXACT_LENGTH else 0.0
    if meter is None or not meter.samples:
        raise ClipError(f"{path} holds not one sample of sound: it must be a whole file of {KINDS}")
    if meter.seconds < min(declared, LOOK_SECONDS) - _TOLERANCE_SECONDS:
        raise ClipError(
            f"{path} is cut off: it tells of {declared:.1f} s and holds {meter.seconds:.1f} s; copy it again"
        )
    return meter.clip(SUFFIXES[kind])


class _Meter:
    """Takes the sound piece by piece, and keeps numbers only."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.samples = 0
        self._size = max(round(rate * FRAME_SECONDS), 1)
        self._rest = np.empty(0)
        self._energies: list[NDArray[np.float64]] = []
        self._peak = 0.0
        self._clipped = 0

    @property
    def seconds(self) -> float:
        """How much it has taken."""
        return self.samples / self.rate

    def add(self, planes: Planes) -> None:
        """Take the next piece."""
        magnitude = np.abs(planes).max(axis=0)
        self.samples += len(magnitude)
        self._peak = max(self._peak, float(magnitude.max(initial=0.0)))
        self._clipped += int(np.count_nonzero(magnitude >= FULL_SCALE))
        mono = np.concatenate([self._rest, planes.mean(axis=0, dtype=np.float64)])
        whole = len(mono) // self._size * self._size
        # The variance, not the mean square: a constant offset is no sound.
        self._energies.append(mono[:whole].reshape(-1, self._size).var(axis=1))
        self._rest = mono[whole:]

    def clip(self, suffix: str) -> Clip:
        """What was measured."""
        energies = np.concatenate(self._energies)
        second = round(1 / FRAME_SECONDS)
        loud = np.sort(energies)[-second:].min(initial=np.inf)
        spoken = energies > max(loud * 10 ** (-DYNAMIC_DB / 10), 10 ** (SILENCE_DBFS / 10))
        return Clip(
            suffix=suffix,
            sample_rate=self.rate,
            seconds=min(self.seconds, LOOK_SECONDS),
            speech_seconds=float(spoken.sum() * FRAME_SECONDS),
            used_speech_seconds=float(spoken[: round(USED_SECONDS / FRAME_SECONDS)].sum() * FRAME_SECONDS),
            level=10 * log10(np.minimum(energies, loud)[spoken].mean()) if spoken.any() else -inf,
            peak=self._peak,
            clipped=self._clipped / self.samples,
        )
