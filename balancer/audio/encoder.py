"""Encodes PCM from the engines as an audio file: an optional tempo change, then one of six formats.

PCM is signed 16-bit little-endian mono throughout. All functions block and are CPU-bound. They share no state, so the
speech service runs any number of them at a time in threads.
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
"""Lowest speed, as a multiple of the original tempo."""
MAX_SPEED = 4.0
"""Highest speed, as a multiple of the original tempo."""

_TEMPO_TAIL_SECONDS = 0.25
"""Silence appended to the input of the tempo filter. The filter drops up to two of its windows, each of up to 1/12 s,
at the end of its input: it must drop this silence, not the last syllable."""


@dataclass(frozen=True)
class _Codec:
    """Parameters of ffmpeg's libraries for one format."""

    muxer: str
    encoder: Literal["libmp3lame", "libopus", "aac", "flac"]
    options: Mapping[str, str] = field(default_factory=dict)
    min_samples: int = 0
    """Shorter audio is padded with silence to this length: players do not recognise a file with too few frames."""


# The encoders share the cores with the models. On speech at 24 kHz, higher compression levels took up to four times as
# long and came no closer to the source.
_CODECS = {
    AudioFormat.MP3: _Codec("mp3", "libmp3lame", {"b": "96000", "compression_level": "7"}, min_samples=1),
    AudioFormat.OPUS: _Codec("opus", "libopus", {"b": "48000", "compression_level": "5"}, min_samples=1),
    # ADTS has no file header: players recognise it by three consecutive frames of 1024 samples. The encoder adds one.
    AudioFormat.AAC: _Codec("adts", "aac", {"b": "64000", "aac_coder": "fast"}, min_samples=2048),
    AudioFormat.FLAC: _Codec("flac", "flac"),
}


class EncodingAbandonedError(Exception):
    """Encoding stopped because `abandoned()` returned true."""


MAX_INLINE_BYTES = 2 * 2**20
"""Largest PCM, in bytes, for which copying it behind a WAV header is cheaper than a switch to a thread."""


def is_cheap(pcm: bytes, audio_format: AudioFormat, speed: float) -> bool:
    """Whether encoding only copies bytes, so that it may run on the event loop."""
    return speed == 1 and audio_format in (AudioFormat.PCM, AudioFormat.WAV) and len(pcm) <= MAX_INLINE_BYTES


def encode(
    pcm: bytes,
    sample_rate: int,
    audio_format: AudioFormat,
    speed: float = 1.0,
    abandoned: Callable[[], bool] = lambda: False,
) -> bytes:
    """Encode `pcm` (`sample_rate` in Hz) as a complete file that plays `speed` times as fast.

    The same arguments give the same bytes. Unless `is_cheap`, this blocks and is CPU-bound: call it off the event loop,
    in any number of threads. Raises ValueError if `pcm` ends within a sample, the rate is not positive, or the speed
    lies outside [MIN_SPEED, MAX_SPEED]. Raises EncodingAbandonedError if `abandoned()`, called once per second of
    audio, returns true.
    """
    pcm = change_tempo(pcm, sample_rate, speed, abandoned)
    if audio_format is AudioFormat.PCM:
        return pcm
    if audio_format is AudioFormat.WAV:
        return _wav(pcm, sample_rate)
    return _encode_with(_CODECS[audio_format], pcm, sample_rate, abandoned)


def change_tempo(pcm: bytes, sample_rate: int, speed: float, abandoned: Callable[[], bool] = lambda: False) -> bytes:
    """PCM at the same pitch whose length is 1/`speed` of `pcm`'s, to the sample; `pcm` itself at speed 1.

    Blocks and is CPU-bound: call it off the event loop. Raises ValueError if `pcm` ends within a sample, the rate is
    not positive, or the speed lies outside [MIN_SPEED, MAX_SPEED].
    """
    _check(pcm, sample_rate)
    if not MIN_SPEED <= speed <= MAX_SPEED:  # this form also refuses NaN
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
    """Length of `pcm` in seconds. Raises ValueError if it ends within a sample or the rate is not positive."""
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
    """Frames of up to one second of `pcm`, so that no encoder converts all of it at once."""
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
    """A filter graph that changes the tempo by `speed`, in the fewest equal steps that lie within [1/2, 2].

    A single step beyond 2 would skip samples instead of blending them.
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
    """PCM of all remaining frames of a flushed graph."""
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
    # A seekable file, so that lengths known only at the end (LAME tag, STREAMINFO) can be written into the header.
    file = io.BytesIO()
    pcm = pcm.ljust(codec.min_samples * SAMPLE_BYTES, b"\0")
    # Without bitexact, an Ogg stream gets a random serial number.
    with av.open(file, "w", format=codec.muxer, options={"fflags": "+bitexact"}) as container:
        rate = _encoder_rate(codec.encoder, sample_rate)
        stream = container.add_stream(codec.encoder, rate=rate, options=dict(codec.options), layout="mono")
        for frame in _frames(pcm, sample_rate, abandoned):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))  # flush
    return file.getvalue()


def _encoder_rate(encoder: str, sample_rate: int) -> int:
    """The lowest rate in Hz that the encoder supports and that loses no bandwidth; otherwise its highest rate."""
    rates = av.Codec(encoder, "w").audio_rates
    if not rates:  # it supports any rate
        return sample_rate
    return min((rate for rate in rates if rate >= sample_rate), default=max(rates))
