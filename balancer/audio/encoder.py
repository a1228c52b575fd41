"""From the engines' PCM to a finished audio file: tempo change, then one of six formats.

PCM is signed 16-bit little-endian mono throughout. Everything here is blocking work for the CPU without
shared state: the speech service runs it in threads, off the event loop, as many at a time as it likes.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, log2
from typing import Literal

import av
import av.filter
import numpy as np

from balancer.audio.formats import AudioFormat
from worker.contract import SAMPLE_BYTES

MIN_SPEED = 0.25
"""Least speed, as a multiple of the spoken tempo."""
MAX_SPEED = 4.0
"""Greatest speed, as a multiple of the spoken tempo."""

_TEMPO_TAIL_SECONDS = 0.25
"""Silence fed to the tempo filter after the audio. The filter drops up to two of its windows, each of up to
1/12 s, at the end of its input: what goes missing must be this silence, not the last syllable."""


@dataclass(frozen=True)
class _Codec:
    """How one format is made by ffmpeg's libraries."""

    muxer: str
    encoder: Literal["libmp3lame", "libopus", "aac", "flac"]
    options: Mapping[str, str] = field(default_factory=dict)
    least_samples: int = 0
    """Shorter audio is filled up with silence: players do not recognise a file of no or too few frames."""


# The encoders share the cores with the models. Compared on speech at 24 kHz, the higher efforts took up to
# four times as long as these and came no closer to the source.
_CODECS = {
    AudioFormat.MP3: _Codec("mp3", "libmp3lame", {"b": "96000", "compression_level": "7"}, least_samples=1),
    AudioFormat.OPUS: _Codec("opus", "libopus", {"b": "48000", "compression_level": "5"}, least_samples=1),
    # ADTS has no header: it is known by three frames of 1024 samples in a row, of which the encoder adds one.
    AudioFormat.AAC: _Codec("adts", "aac", {"b": "64000", "aac_coder": "fast"}, least_samples=2048),
    AudioFormat.FLAC: _Codec("flac", "flac"),
}


class EncodingAbandonedError(Exception):
    """Nobody wants the file any more."""


INLINE_BYTES = 2 * 2**20
"""Most PCM that is cheaper to copy behind a WAV header than to hand to a thread."""


def is_cheap(pcm: bytes, audio_format: AudioFormat, speed: float) -> bool:
    """Whether encoding is but a copy, which does not hold up an event loop."""
    return speed == 1 and audio_format in (AudioFormat.PCM, AudioFormat.WAV) and len(pcm) <= INLINE_BYTES


def encode(
    pcm: bytes,
    sample_rate: int,
    audio_format: AudioFormat,
    speed: float = 1.0,
    abandoned: Callable[[], bool] = lambda: False,
) -> bytes:
    """Make the whole file for `pcm` (at `sample_rate` samples a second), spoken `speed` times as fast.

    The same arguments give the same bytes. Blocking and heavy on the CPU unless it `is_cheap`: callers run it off the
    event loop, in any number of threads. Raises ValueError on half a sample, a rate that is not positive, or a speed
    outside [MIN_SPEED, MAX_SPEED]; EncodingAbandonedError once `abandoned()`, which is called after each second of
    audio, returns true.
    """
    pcm = change_tempo(pcm, sample_rate, speed, abandoned)
    if audio_format is AudioFormat.PCM:
        return pcm
    if audio_format is AudioFormat.WAV:
        return _wav(pcm, sample_rate)
    return _encode_with(_CODECS[audio_format], pcm, sample_rate, abandoned)


def change_tempo(pcm: bytes, sample_rate: int, speed: float, abandoned: Callable[[], bool] = lambda: False) -> bytes:
    """PCM that lasts 1/`speed` times as long, to the sample, at the same pitch; at speed 1 `pcm` itself.

    Blocking and heavy on the CPU: callers run it off the event loop. Raises ValueError on half a sample, a
    rate that is not positive, or a speed outside [MIN_SPEED, MAX_SPEED].
    """
    _check(pcm, sample_rate)
    if not MIN_SPEED <= speed <= MAX_SPEED:  # so put, it refuses NaN, too
        raise ValueError(f"speed must be from {MIN_SPEED} to {MAX_SPEED}, not {speed}")
    if speed == 1:
        return pcm
    graph = _tempo_graph(sample_rate, speed)
    for frame in _frames(pcm + _silence(ceil(_TEMPO_TAIL_SECONDS * sample_rate)), sample_rate, abandoned):
        graph.push(frame)
    graph.push(None)  # flush
    size = round(len(pcm) // SAMPLE_BYTES / speed) * SAMPLE_BYTES
    return _drain(graph)[:size].ljust(size, b"\0")


def duration(pcm: bytes, sample_rate: int) -> float:
    """Seconds that `pcm` lasts. Raises ValueError on half a sample or a rate that is not positive."""
    _check(pcm, sample_rate)
    return len(pcm) / SAMPLE_BYTES / sample_rate


def _check(pcm: bytes, sample_rate: int) -> None:
    if len(pcm) % SAMPLE_BYTES:
        raise ValueError(f"PCM ends within a sample: {len(pcm)} bytes")
    if sample_rate <= 0:
        raise ValueError(f"sample rate must be positive, not {sample_rate}")


def _silence(samples: int) -> bytes:
    return bytes(samples * SAMPLE_BYTES)


def _frames(pcm: bytes, sample_rate: int, abandoned: Callable[[], bool]) -> Iterator[av.AudioFrame]:
    """Cut the samples into frames of up to a second, so that no encoder converts the whole at once."""
    samples = np.frombuffer(pcm, np.int16)
    for start in range(0, len(samples), sample_rate):
        if abandoned():
            raise EncodingAbandonedError
        second = samples[np.newaxis, start : start + sample_rate]
        frame = av.AudioFrame.from_ndarray(second, format="s16", layout="mono")
        frame.sample_rate = sample_rate
        frame.time_base = Fraction(1, sample_rate)
        frame.pts = start
        yield frame


def _tempo_graph(sample_rate: int, speed: float) -> av.filter.Graph:
    """Chain filters that change the tempo by `speed`, in as few equal steps within [1/2, 2] as it takes.

    One step beyond 2 would leave out samples instead of blending them.
    """
    steps = ceil(abs(log2(speed)))
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_abuffer(sample_rate=sample_rate, format="s16", layout="mono"),
        *(graph.add("atempo", f"{speed ** (1 / steps):.9f}") for _ in range(steps)),
        graph.add("abuffersink"),
    ).configure()
    return graph


def _drain(graph: av.filter.Graph) -> bytes:
    """PCM of all frames that come out of a flushed graph."""
    pcm = bytearray()
    while True:
        try:
            pcm += graph.pull().to_ndarray().tobytes()
        except EOFError:
            return bytes(pcm)


def _wav(pcm: bytes, sample_rate: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(SAMPLE_BYTES)
        writer.setframerate(sample_rate)
        writer.writeframes(pcm)
    return file.getvalue()


def _encode_with(codec: _Codec, pcm: bytes, sample_rate: int, abandoned: Callable[[], bool]) -> bytes:
    # A file to seek in, so that lengths known only at the end (LAME tag, STREAMINFO) reach its header.
    file = io.BytesIO()
    pcm = pcm.ljust(codec.least_samples * SAMPLE_BYTES, b"\0")
    # Without bitexact, an Ogg stream gets a random serial number.
    with av.open(file, "w", format=codec.muxer, options={"fflags": "+bitexact"}) as container:
        rate = _encoder_rate(codec.encoder, sample_rate)
        stream = container.add_stream(codec.encoder, rate=rate, options=dict(codec.options), layout="mono")
        for frame in _frames(pcm, sample_rate, abandoned):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))  # flush
    return file.getvalue()


def _encoder_rate(encoder: str, sample_rate: int) -> int:
    """Choose the lowest rate the encoder takes that keeps all of the sound, else its highest."""
    rates = av.Codec(encoder, "w").audio_rates
    if not rates:  # takes any
        return sample_rate
    return min((rate for rate in rates if rate >= sample_rate), default=max(rates))
