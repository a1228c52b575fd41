"""Inspects a reference clip: whether it can be decoded, and whether its sound is good enough to clone a voice from.

Used when a voice is added, and to find out why a voice does not sound as it should. Only measurements are kept, not the
sound itself, so that a recording of any length can be inspected.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import StrEnum
from math import inf, log10
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from voices.downmix import MAX_CHANNELS, Downmix, Mono, Planes
from voices.regular_files import MAX_CLIP_BYTES, check_regular_file

SUFFIXES = {
    "wav": ".wav",
    "mp3": ".mp3",
    "flac": ".flac",
    "ogg": ".ogg",
    "mov": ".m4a",
    "aac": ".aac",
    "matroska": ".webm",
    "aiff": ".aiff",
    "caf": ".caf",
    "asf": ".wma",
}
"""Accepted containers by their names in ffmpeg, each with its file name suffix. None of them refers to other files, as
a playlist does."""
KINDS = "wav, mp3, flac, ogg (Vorbis or Opus), m4a, aac, webm, aiff, caf or wma"

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
MIN_CONTRAST_DB = 5.0
"""Speech without any pause, of the embedded voice, has 9 dB; speech in white noise 7 dB if the noise is 10 dB softer,
and 3.6 dB if it is 5 dB softer; noise alone has 0 to 3.5 dB, by its colour."""
MAX_CANCELLED_DB = 12.0
"""Sound on one rear channel only loses 9 dB, on the left or right one 6 dB."""

_EXACT_LENGTH = ("flac", "mov", "aiff")
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
    second, wherever they lie; in a clip of less than two seconds of sound, the louder half of it. Pauses do not count
    and a click does not mask the rest, but music passes as speech; steady noise does, too, but has no contrast. Several
    channels are mixed to one first, as by the engines.
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
    contrast: float
    """By how many dB the softest tenth of the speech lies below its level: gaps between syllables, or noise in them."""
    cancelled: float
    """By how many dB the mix of the channels is softer than the loudest of them."""


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


class Subject(StrEnum):
    """The subjects of a clip's checks."""

    LENGTH = "length"
    LEVEL = "level"
    NOISE = "noise"
    CLIPPING = "clipping"
    SAMPLE_RATE = "sample rate"
    CHANNELS = "channels"


@dataclass(frozen=True)
class Check:
    """The result of one check of a clip."""

    subject: Subject
    passed: bool
    words: str
    """The measurement, or the fault and its remedy."""


def faults(clip: Clip) -> tuple[str, ...]:
    """Returns every defect that keeps a clip from being cloned well, each with its remedy."""
    return tuple(fault for _, fault in _faults(clip))


def checks(clip: Clip) -> tuple[Check, ...]:
    """Returns the verdict on a clip by subject. The level and noise of a clip without speech have none."""
    found: dict[Subject, list[str]] = {}
    for subject, fault in _faults(clip):
        found.setdefault(subject, []).append(fault)
    measured = {
        Subject.LENGTH: f"{clip.seconds:.1f} s, {clip.used_speech_seconds:.1f} s of speech in the part that is used",
        Subject.CLIPPING: f"{clip.clipped:.2%} of its samples at full scale",
        Subject.SAMPLE_RATE: f"{clip.sample_rate} Hz",
    }
    if clip.level > -inf:
        measured[Subject.LEVEL] = f"speech at {clip.level:.0f} dBFS"
        measured[Subject.NOISE] = f"loud and soft parts differ by {clip.contrast:.0f} dB"
    return tuple(
        Check(subject, subject not in found, "; ".join(found.get(subject, [])) or measured[subject])
        for subject in Subject
        if subject in found or subject in measured
    )


def _faults(clip: Clip) -> list[tuple[Subject, str]]:
    of_speech = _fault_of_speech(clip)
    found = [] if of_speech is None else [of_speech]
    if clip.seconds >= MAX_ANALYSED_SECONDS:
        fault = (
            f"it lasts {MAX_ANALYSED_SECONDS / 60:g} minutes or more, and only its first 10 to {USED_SECONDS:g} s are "
            "used: cut it to these"
        )
        found.append((Subject.LENGTH, fault))
    if -inf < clip.level < MIN_SPEECH_DBFS and clip.cancelled <= MAX_CANCELLED_DB:
        fault = (
            f"it is too quiet, {clip.level:.0f} dBFS, and at least {MIN_SPEECH_DBFS:g} dBFS are needed: "
            "record it again, closer to the microphone"
        )
        found.append((Subject.LEVEL, fault))
    if clip.clipped > MAX_CLIPPED_SHARE:
        fault = f"it is clipped, {clip.clipped:.1%} of its samples are at full scale: record it again, with less gain"
        found.append((Subject.CLIPPING, fault))
    if clip.sample_rate < MIN_SAMPLE_RATE:
        fault = (
            f"its sample rate is {clip.sample_rate} Hz, and at least {MIN_SAMPLE_RATE} Hz are needed: record it again "
            "at 24000 Hz or more (resampling does not restore what is missing)"
        )
        found.append((Subject.SAMPLE_RATE, fault))
    return found


def _fault_of_speech(clip: Clip) -> tuple[Subject, str] | None:
    """The fault that leaves the engines too little speech, if any: the first cause, which makes others follow."""
    if clip.cancelled > MAX_CANCELLED_DB:
        fault = (
            "its channels cancel each other when they are mixed, since one has the opposite sign of another: "
            "save one of them alone, as mono"
        )
        return Subject.CHANNELS, fault
    if clip.level == -inf:
        return Subject.LEVEL, "it is silent: record it again, with the microphone on"
    if clip.speech_seconds >= MIN_SPEECH_SECONDS and clip.level >= MIN_SPEECH_DBFS and clip.contrast < MIN_CONTRAST_DB:
        fault = (
            f"it is mostly noise, or a steady sound, whose loud and soft parts differ by {clip.contrast:.0f} dB, and "
            f"those of speech by at least {MIN_CONTRAST_DB:g} dB: record it again, in a quiet room"
        )
        return Subject.NOISE, fault
    length = _fault_of_length(clip)
    return None if length is None else (Subject.LENGTH, length)


def _fault_of_length(clip: Clip) -> str | None:
    if clip.seconds < MIN_SPEECH_SECONDS:
        return (
            f"it is too short, {clip.seconds:.1f} s with {clip.speech_seconds:.1f} s of speech, and at least "
            f"{MIN_SPEECH_SECONDS:g} s of speech are needed: record 10 to {USED_SECONDS:g} s"
        )
    if clip.speech_seconds < MIN_SPEECH_SECONDS:
        return (
            f"it has {clip.speech_seconds:.1f} s of speech, and at least {MIN_SPEECH_SECONDS:g} s are needed: "
            f"record 10 to {USED_SECONDS:g} s"
        )
    if clip.used_speech_seconds < MIN_SPEECH_SECONDS:
        return (
            f"only its first {USED_SECONDS:g} s are used; they have {clip.used_speech_seconds:.1f} s of speech, and at "
            f"least {MIN_SPEECH_SECONDS:g} s are needed: cut off what comes before the speech"
        )
    return None


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
        downmix = Downmix()
        for frame in container.decode(audio=0):
            shape = (frame.sample_rate, frame.layout.name)
            if meter is None:
                meter, first = _Meter(frame.sample_rate), shape
            if shape != first:
                raise ClipError(f"{path} changes its sample rate or channels midway: save it again with one of each")
            _add_frame(meter, downmix, frame, path)
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


def _add_frame(meter: _Meter, downmix: Downmix, frame: av.AudioFrame, path: Path) -> None:
    if frame.layout.nb_channels > MAX_CHANNELS:
        raise ClipError(f"{path} has {frame.layout.nb_channels} channels: save it as mono")
    for planes, mix in downmix.mix(frame):
        if not np.isfinite(planes).all():
            raise ClipError(f"{path} is damaged: some of its samples are not finite numbers")
        meter.add(planes, mix)


class _Meter:
    """Measures sound block by block, without keeping it."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.samples = 0
        self._size = max(round(rate * FRAME_SECONDS), 1)
        self._remainder = np.empty(0)
        self._energies: list[NDArray[np.float64]] = []
        self._channel_energies: NDArray[np.float64] = np.zeros(1)
        self._mix_energy = 0.0
        self._peak = 0.0
        self._clipped = 0

    @property
    def seconds(self) -> float:
        """Duration of the sound that was added."""
        return self.samples / self.rate

    def add(self, planes: Planes, mix: Mono) -> None:
        """Adds the next block: the channels, and their mix."""
        magnitude = np.abs(planes).max(axis=0)
        self.samples += len(magnitude)
        self._peak = max(self._peak, float(magnitude.max(initial=0.0)))
        self._clipped += int(np.count_nonzero(magnitude >= FULL_SCALE))
        # Variance instead of mean square: a constant offset is not sound.
        self._channel_energies = self._channel_energies + len(mix) * planes.var(axis=1, dtype=np.float64)
        self._mix_energy += len(mix) * float(mix.var(dtype=np.float64))
        mono = np.concatenate([self._remainder, mix])
        whole = len(mono) // self._size * self._size
        self._energies.append(mono[:whole].reshape(-1, self._size).var(axis=1))
        self._remainder = mono[whole:]

    def clip(self, suffix: str) -> Clip:
        """Returns the measurements."""
        energies = np.concatenate(self._energies)
        silence = 10 ** (SILENCE_DBFS / 10)
        audible = np.sort(energies[energies > silence])
        second = min(round(1 / FRAME_SECONDS), (len(audible) + 1) // 2)
        loud = float(audible[-second]) if len(audible) else inf
        is_speech = energies > max(loud * 10 ** (-DYNAMIC_DB / 10), silence)
        speech = energies[is_speech]
        level = float(np.minimum(speech, loud).mean()) if len(speech) else 0.0
        return Clip(
            suffix=suffix,
            sample_rate=self.rate,
            seconds=min(self.seconds, MAX_ANALYSED_SECONDS),
            speech_seconds=float(is_speech.sum() * FRAME_SECONDS),
            used_speech_seconds=float(is_speech[: round(USED_SECONDS / FRAME_SECONDS)].sum() * FRAME_SECONDS),
            level=_decibels(level, 1.0),
            peak=self._peak,
            clipped=self._clipped / self.samples,
            contrast=_decibels(level, float(np.quantile(speech, 0.1))) if len(speech) else 0.0,
            cancelled=_decibels(float(self._channel_energies.max()), self._mix_energy),
        )


def _decibels(power: float, reference: float) -> float:
    """The dB by which a power lies above another; silence lies -inf above sound, and 0 above silence."""
    if not power:
        return -inf if reference else 0.0
    return 10 * log10(power / reference) if reference else inf
