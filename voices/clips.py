"""Inspects a reference clip: whether it can be decoded, and whether its sound is good enough to clone a voice from.

Used when a voice is added, and to find out why a voice does not sound as it should. Only measurements are kept, not the
sound itself, so that a recording of any length can be inspected.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from math import inf, log10
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from voices.regular_files import MAX_CLIP_BYTES, check_regular_file

Planes = NDArray[np.float32]
"""Samples of shape (channels, samples), in [-1, 1] unless the recording goes beyond."""

SUFFIXES = {"wav": ".wav", "mp3": ".mp3", "flac": ".flac", "ogg": ".ogg", "mov": ".m4a"}
"""Accepted containers by their names in ffmpeg, each with its file name suffix. None of them refers to other files, as
a playlist does."""
KINDS = "wav, mp3, flac, ogg (Vorbis or Opus) or m4a"

MIN_SPEECH_SECONDS = 5.0
"""The engines refuse clips with less speech, or clone them badly."""
USED_SECONDS = 15.0
"""The engines use only the first 10 to 15 s of a clip."""
LONG_SECONDS = 60.0
"""A longer clip is worth a remark."""
MAX_ANALYSED_SECONDS = 600.0
"""A longer clip is refused, and its rest is not analysed."""
MIN_SAMPLE_RATE = 16_000
"""In Hz: the rate at which the engines analyse the speaker. At a lower rate the high frequencies of consonants are
missing."""
MIN_SPEECH_DBFS = -40.0
"""Speech below this level is too close to the noise of the recording."""
SILENCE_DBFS = -60.0
"""A frame below this level is not speech."""
FULL_SCALE = 0.99
"""A sample of at least this magnitude counts as clipped; an encoder may have rounded it down from 1."""
MAX_CLIPPED_SHARE = 0.001
"""Maximum share of clipped samples: a loud recording reaches full scale now and then."""

FRAME_SECONDS = 0.03
"""Length of the frames that are classified as speech or not."""
DYNAMIC_DB = 30.0
"""A frame is speech if its level is at most this much below that of the loudest second of the clip."""

_EXACT_LENGTH = ("flac", "mov")
"""Containers whose header states the exact length; in the others it is an estimate, or derived from the file's size."""
_TOLERANCE_SECONDS = 0.1
"""The stated length may or may not include the encoder's padding."""


class ClipError(ValueError):
    """A file cannot be used as a reference clip; the message names the file and the reason."""


@dataclass(frozen=True)
class Clip:
    """Measurements of a clip, or of its first MAX_ANALYSED_SECONDS.

    Speech is detected by energy alone: the clip is cut into frames of FRAME_SECONDS, and a frame counts as speech if
    its level is above SILENCE_DBFS and at most DYNAMIC_DB below the quietest of the loudest frames that make up one
    second, wherever they lie. Pauses do not count and a click does not mask the rest, but music or steady noise passes
    as speech.
    """

    suffix: str
    """File name suffix for the container found in the file: `.wav`, `.mp3`, `.flac`, `.ogg` or `.m4a`."""
    sample_rate: int
    """In Hz."""
    seconds: float
    """Length, at most MAX_ANALYSED_SECONDS."""
    speech_seconds: float
    """Speech in the whole clip."""
    used_speech_seconds: float
    """Speech in the first USED_SECONDS."""
    level: float
    """RMS of the speech in dBFS, with peaks above the loudest second left out; -inf if there is no speech."""
    peak: float
    """Maximum magnitude in any channel; 1 is full scale."""
    clipped: float
    """Share of samples that are clipped in any channel, in [0, 1]."""


def inspect(path: Path) -> Clip:
    """Decodes and measures a clip. Raises ClipError if it is not audio, or of another format, empty or damaged."""
    try:
        check_regular_file(path, MAX_CLIP_BYTES)
        path.open("rb").close()  # ffmpeg's errors do not distinguish an unreadable file from an invalid one
        return _measure(path)
    except av.FFmpegError as error:
        raise ClipError(f"{path} cannot be decoded: it must be a whole file of {KINDS}") from error
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ClipError(f"there is no file {path}") from error
    except OSError as error:
        too_large = f"; record 10 to {USED_SECONDS:g} s" if error.errno == errno.EFBIG else ""
        raise ClipError(f"cannot read {path}: {error.strerror}{too_large}") from error


def faults(clip: Clip) -> tuple[str, ...]:
    """Returns every defect that keeps a clip from being cloned well, each with its remedy."""
    found = []
    if clip.level == -inf:
        found.append("it is silent: record it again, with the microphone on")
    elif clip.speech_seconds < MIN_SPEECH_SECONDS:
        found.append(
            f"it has {clip.speech_seconds:.1f} s of speech, and at least {MIN_SPEECH_SECONDS:g} s are needed: "
            f"record 10 to {USED_SECONDS:g} s"
        )
    elif clip.used_speech_seconds < MIN_SPEECH_SECONDS:
        found.append(
            f"only its first {USED_SECONDS:g} s are used; they have {clip.used_speech_seconds:.1f} s of speech, and at "
            f"least {MIN_SPEECH_SECONDS:g} s are needed: cut off what comes before the speech"
        )
    if clip.seconds >= MAX_ANALYSED_SECONDS:
        found.append(
            f"it lasts {MAX_ANALYSED_SECONDS / 60:g} minutes or more, and only its first 10 to {USED_SECONDS:g} s are "
            "used: cut it to these"
        )
    if -inf < clip.level < MIN_SPEECH_DBFS:
        found.append(
            f"it is too quiet, {clip.level:.0f} dBFS, and at least {MIN_SPEECH_DBFS:g} dBFS are needed: "
            "record it again, closer to the microphone"
        )
    if clip.clipped > MAX_CLIPPED_SHARE:
        found.append(
            f"it is clipped, {clip.clipped:.1%} of its samples are at full scale: record it again, with less gain"
        )
    if clip.sample_rate < MIN_SAMPLE_RATE:
        found.append(
            f"its sample rate is {clip.sample_rate} Hz, and at least {MIN_SAMPLE_RATE} Hz are needed: record it again "
            "at 24000 Hz or more (resampling does not restore what is missing)"
        )
    return tuple(found)


def notes(clip: Clip) -> tuple[str, ...]:
    """Returns remarks on a clip that can be used nevertheless."""
    if clip.seconds <= LONG_SECONDS:
        return ()
    return (f"it lasts {clip.seconds:.0f} s, and only its first 10 to {USED_SECONDS:g} s are used",)


def _measure(path: Path) -> Clip:
    with av.open(
        f"file:{path}", options={"format_whitelist": ",".join(SUFFIXES)}, metadata_errors="ignore"
    ) as container:
        kind = container.format.name.partition(",")[0]
        if not container.streams.audio:
            raise ClipError(f"{path} has no audio stream: it must be a whole file of {KINDS}")
        meter: _Meter | None = None
        to_float = av.AudioResampler(format="fltp")  # keeps sample rate and channels
        for frame in container.decode(audio=0):
            shape = (frame.sample_rate, frame.layout.name)
            if meter is None:
                meter, first = _Meter(frame.sample_rate), shape
            if shape != first:
                raise ClipError(f"{path} changes its sample rate or channels midway: save it again with one of each")
            for converted in to_float.resample(frame):
                planes = converted.to_ndarray().astype(np.float32, copy=False)
                if not np.isfinite(planes).all():
                    raise ClipError(f"{path} is damaged: some of its samples are not finite numbers")
                meter.add(planes)
            if meter.seconds >= MAX_ANALYSED_SECONDS:
                break
        declared = (container.duration or 0) / av.time_base if kind in _EXACT_LENGTH else 0.0
    if meter is None or not meter.samples:
        raise ClipError(f"{path} has no samples: it must be a whole file of {KINDS}")
    if meter.seconds < min(declared, MAX_ANALYSED_SECONDS) - _TOLERANCE_SECONDS:
        raise ClipError(
            f"{path} is truncated: its header states {declared:.1f} s, but it holds {meter.seconds:.1f} s; "
            "copy it again"
        )
    return meter.clip(SUFFIXES[kind])


class _Meter:
    """Measures sound block by block, without keeping it."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.samples = 0
        self._size = max(round(rate * FRAME_SECONDS), 1)
        self._remainder = np.empty(0)
        self._energies: list[NDArray[np.float64]] = []
        self._peak = 0.0
        self._clipped = 0

    @property
    def seconds(self) -> float:
        """Duration of the sound that was added."""
        return self.samples / self.rate

    def add(self, planes: Planes) -> None:
        """Adds the next block."""
        magnitude = np.abs(planes).max(axis=0)
        self.samples += len(magnitude)
        self._peak = max(self._peak, float(magnitude.max(initial=0.0)))
        self._clipped += int(np.count_nonzero(magnitude >= FULL_SCALE))
        mono = np.concatenate([self._remainder, planes.mean(axis=0, dtype=np.float64)])
        whole = len(mono) // self._size * self._size
        # Variance instead of mean square: a constant offset is not sound.
        self._energies.append(mono[:whole].reshape(-1, self._size).var(axis=1))
        self._remainder = mono[whole:]

    def clip(self, suffix: str) -> Clip:
        """Returns the measurements."""
        energies = np.concatenate(self._energies)
        second = round(1 / FRAME_SECONDS)
        loud = np.sort(energies)[-second:].min(initial=np.inf)
        is_speech = energies > max(loud * 10 ** (-DYNAMIC_DB / 10), 10 ** (SILENCE_DBFS / 10))
        return Clip(
            suffix=suffix,
            sample_rate=self.rate,
            seconds=min(self.seconds, MAX_ANALYSED_SECONDS),
            speech_seconds=float(is_speech.sum() * FRAME_SECONDS),
            used_speech_seconds=float(is_speech[: round(USED_SECONDS / FRAME_SECONDS)].sum() * FRAME_SECONDS),
            level=10 * log10(np.minimum(energies, loud)[is_speech].mean()) if is_speech.any() else -inf,
            peak=self._peak,
            clipped=self._clipped / self.samples,
        )
