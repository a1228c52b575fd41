"""Encodes PCM from the engines as an audio file: an optional tempo change, then one of six formats.

PCM is signed 16-bit little-endian mono throughout, and passes through in pieces of one second. Encoding blocks and is
CPU-bound; encodes share no state, so any number of them may run at a time in threads.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from math import ceil, log2
from typing import IO, Any, Literal

import av
import av.filter
import numpy as np

from balancer.audio.aac_frames import fill, frame_bytes
from balancer.audio.buffers import AudioBuffer, PrefixedBuffer
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
    min_rate: int = 0
    """Lowest sample rate in Hz that is encoded."""
    strict_bit_rate: int | None = None
    """Bits per second of an AAC encoder that keeps its bit rate in each frame: the frames are filled to one size."""


_AAC_BIT_RATE = 80_000
"""In bits per second: as close to the source as 64,000 are with frames of different sizes."""

# The encoders share the cores with the models. On speech at 24 kHz, higher compression levels took up to four times as
# long and came no closer to the source.
_CODECS = {
    AudioFormat.MP3: _Codec("mp3", "libmp3lame", {"b": "96000", "compression_level": "7"}, min_samples=1),
    AudioFormat.OPUS: _Codec("opus", "libopus", {"b": "48000", "compression_level": "5"}, min_samples=1),
    # ADTS has no file header: players recognise it by three consecutive frames of 1024 samples. They play all of them,
    # the one that the encoder adds first and the padding of the last, too: 21 to 43 ms at 48 kHz, twice as much at 24.
    # With bt=0 no frame is larger than the bit rate allows.
    AudioFormat.AAC: _Codec(
        "adts",
        "aac",
        {"b": str(_AAC_BIT_RATE), "aac_coder": "fast", "bt": "0"},
        min_samples=2048,
        min_rate=48_000,
        strict_bit_rate=_AAC_BIT_RATE,
    ),
    AudioFormat.FLAC: _Codec("flac", "flac"),
}

_FLAC_RATIO = 0.7
"""The part of speech's size that FLAC leaves, at most."""


class EncodingAbandonedError(Exception):
    """Encoding stopped because `abandoned()` returned true."""


def expected_bytes(seconds: float, sample_rate: int, audio_format: AudioFormat, speed: float) -> float:
    """About the size of a file with so many seconds of speech at speed 1."""
    codec = _CODECS.get(audio_format)
    if codec is not None and "b" in codec.options:
        return seconds / speed * int(codec.options["b"]) / 8
    return seconds / speed * sample_rate * SAMPLE_BYTES * (_FLAC_RATIO if codec else 1.0)


def is_pcm_copy(audio_format: AudioFormat, speed: float) -> bool:
    """Whether the file is the PCM itself, at most behind a header: `as_file` makes it without copying."""
    return speed == 1 and audio_format in (AudioFormat.PCM, AudioFormat.WAV)


def as_file(pcm: AudioBuffer, sample_rate: int, audio_format: AudioFormat) -> AudioBuffer:
    """PCM as a file of one of the formats of `is_pcm_copy`. Takes no time. Raises ValueError as `encode`."""
    _check(len(pcm), sample_rate)
    return pcm if audio_format is AudioFormat.PCM else PrefixedBuffer(_wav_header(len(pcm), sample_rate), pcm)


def encode(
    pcm: AudioBuffer,
    sample_rate: int,
    audio_format: AudioFormat,
    speed: float,
    output: IO[bytes],
    abandoned: Callable[[], bool] = lambda: False,
) -> None:
    """Write `pcm` (`sample_rate` in Hz) to `output` as a complete file that plays `speed` times as fast.

    The same arguments write the same bytes. This blocks and is CPU-bound, and takes little memory, however long the
    audio: call it off the event loop, in any number of threads. Raises ValueError if `pcm` ends within a sample, the
    rate is not positive, or the speed lies outside [MIN_SPEED, MAX_SPEED]. Raises EncodingAbandonedError if
    `abandoned()`, called once per second of audio, returns true. `output` is seekable.
    """
    size = _size_at(len(pcm), sample_rate, speed)
    seconds = change_tempo(pcm, sample_rate, speed, abandoned)
    if audio_format not in _CODECS:
        if audio_format is AudioFormat.WAV:
            output.write(_wav_header(size, sample_rate))
        for second in seconds:
            output.write(second)
        return
    _encode_with(_CODECS[audio_format], _padded(seconds, _CODECS[audio_format].min_samples), sample_rate, output)


def change_tempo(
    pcm: AudioBuffer, sample_rate: int, speed: float, abandoned: Callable[[], bool] = lambda: False
) -> Iterator[bytes]:
    """PCM at the same pitch whose length is 1/`speed` of `pcm`'s, to the sample, in pieces of one second.

    Blocks and is CPU-bound: call it off the event loop. Raises ValueError if `pcm` ends within a sample, the rate is
    not positive, or the speed lies outside [MIN_SPEED, MAX_SPEED].
    """
    size = _size_at(len(pcm), sample_rate, speed)
    seconds = _seconds_of(pcm, sample_rate, abandoned)
    if speed == 1:
        return seconds
    return _regrouped(_filtered(seconds, sample_rate, speed), size, sample_rate * SAMPLE_BYTES)


def duration(size: int, sample_rate: int) -> float:
    """Length of `size` bytes of PCM in seconds.

    Raises ValueError if it ends within a sample or the rate is not positive.
    """
    _check(size, sample_rate)
    return size / SAMPLE_BYTES / sample_rate


def _check(size: int, sample_rate: int) -> None:
    if size % SAMPLE_BYTES:
        raise ValueError(f"PCM ends within a sample: {size} bytes")
    if sample_rate <= 0:
        raise ValueError(f"sample rate must be positive, not {sample_rate}")


def _size_at(size: int, sample_rate: int, speed: float) -> int:
    """Bytes of PCM after the tempo change."""
    _check(size, sample_rate)
    if not MIN_SPEED <= speed <= MAX_SPEED:  # this form also refuses NaN
        raise ValueError(f"speed must be from {MIN_SPEED} to {MAX_SPEED}, not {speed}")
    return round(size // SAMPLE_BYTES / speed) * SAMPLE_BYTES


def _silence(samples: int) -> bytes:
    return bytes(samples * SAMPLE_BYTES)


def _seconds_of(pcm: AudioBuffer, sample_rate: int, abandoned: Callable[[], bool]) -> Iterator[bytes]:
    for second in pcm.pieces(sample_rate * SAMPLE_BYTES):
        if abandoned():
            raise EncodingAbandonedError
        yield second


def _padded(seconds: Iterator[bytes], min_samples: int) -> Iterator[bytes]:
    """The same PCM; the first piece is padded with silence to `min_samples`, or made of it if there is none."""
    yield next(seconds, b"").ljust(min_samples * SAMPLE_BYTES, b"\0")
    yield from seconds


def _regrouped(pieces: Iterator[bytes], size: int, piece_size: int) -> Iterator[bytes]:
    """The first `size` bytes of `pieces`, padded with silence, in pieces of `piece_size`."""
    pending = bytearray()
    for piece in pieces:
        pending += piece[: max(0, size)]
        size -= len(piece)
        while len(pending) >= piece_size:
            yield bytes(pending[:piece_size])
            del pending[:piece_size]
    pending += bytes(max(0, size))
    yield from (bytes(pending[start : start + piece_size]) for start in range(0, len(pending), piece_size))


def _frames(seconds: Iterator[bytes], sample_rate: int) -> Iterator[av.AudioFrame]:
    """A frame for each piece of PCM."""
    start = 0
    for second in seconds:
        samples = np.frombuffer(second, np.int16)
        if not len(samples):
            continue
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="s16", layout="mono")
        frame.sample_rate = sample_rate
        frame.time_base = Fraction(1, sample_rate)
        frame.pts = start
        start += len(samples)
        yield frame


def _filtered(seconds: Iterator[bytes], sample_rate: int, speed: float) -> Iterator[bytes]:
    """PCM of about the new length, in pieces of any size."""
    graph = _tempo_graph(sample_rate, speed)
    tail = _silence(ceil(_TEMPO_TAIL_SECONDS * sample_rate))
    for frame in _frames(chain(seconds, [tail]), sample_rate):
        graph.push(frame)
        yield from _pulled(graph)
    graph.push(None)  # flush
    yield from _pulled(graph)


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


def _pulled(graph: av.filter.Graph) -> Iterator[bytes]:
    """PCM of the frames that are complete."""
    while True:
        try:
            yield graph.pull().to_ndarray().tobytes()
        except (BlockingIOError, EOFError):  # it needs more input; it is flushed
            return


def _wav_header(size: int, sample_rate: int) -> bytes:
    """The header of a WAV file with `size` bytes of PCM."""
    chunk = struct.pack("<HHIIHH", 1, 1, sample_rate, sample_rate * SAMPLE_BYTES, SAMPLE_BYTES, 8 * SAMPLE_BYTES)
    head = struct.pack("<4sI4s4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", len(chunk))
    return head + chunk + struct.pack("<4sI", b"data", size)


def _encode_with(codec: _Codec, seconds: Iterator[bytes], sample_rate: int, output: IO[bytes]) -> None:
    # `output` is seekable, so that lengths known only at the end (LAME tag, STREAMINFO) can be written into the header.
    # Without bitexact, an Ogg stream gets a random serial number.
    with av.open(output, "w", format=codec.muxer, options={"fflags": "+bitexact"}) as container:
        rate = _encoder_rate(codec.encoder, max(sample_rate, codec.min_rate))
        stream = container.add_stream(codec.encoder, rate=rate, options=dict(codec.options), layout="mono")
        size = 0 if codec.strict_bit_rate is None else frame_bytes(codec.strict_bit_rate, rate)
        for frame in chain(_frames(seconds, sample_rate), [None]):  # the last flushes
            container.mux([_filled(packet, size) for packet in stream.encode(frame)])


def _filled(packet: av.Packet[Any], size: int) -> av.Packet[Any]:
    """The packet, or a longer one of `size` bytes."""
    if packet.size >= size:
        return packet
    filled = av.Packet(fill(bytes(packet), size))
    filled.stream, filled.time_base, filled.pts, filled.dts = packet.stream, packet.time_base, packet.pts, packet.dts
    filled.duration = packet.duration
    return filled


def _encoder_rate(encoder: str, sample_rate: int) -> int:
    """The lowest rate in Hz that the encoder supports and that loses no bandwidth; otherwise its highest rate."""
    rates = av.Codec(encoder, "w").audio_rates
    if not rates:  # it supports any rate
        return sample_rate
    return min((rate for rate in rates if rate >= sample_rate), default=max(rates))
