"""Encodes PCM from the engines as an audio file: an optional tempo change, then one of six formats.

PCM passes through in pieces of one second. Encoding blocks and is CPU-bound; encodes share no state, so any number of
them may run at a time in threads.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import IO

from balancer.audio.buffers import AudioBuffer, PrefixedBuffer
from balancer.audio.codecs import CODECS, Muxer
from balancer.audio.formats import AudioFormat
from balancer.audio.pcm import check
from balancer.audio.tempo import change_tempo, size_at
from worker.contract import SAMPLE_BYTES

_UNKNOWN_BYTES = 2**32 - 1
"""Stands in a header where the size is not known: players play such a file to its end."""

_FLAC_RATIO = 0.7
"""The part of speech's size that FLAC leaves, at most."""


class EncodingAbandonedError(Exception):
    """Encoding stopped because `abandoned()` returned true."""


def expected_bytes(seconds: float, sample_rate: int, audio_format: AudioFormat, speed: float) -> float:
    """About the size of a file with so many seconds of speech at speed 1."""
    codec = CODECS.get(audio_format)
    if codec is not None and "b" in codec.options:
        return seconds / speed * int(codec.options["b"]) / 8
    return seconds / speed * sample_rate * SAMPLE_BYTES * (_FLAC_RATIO if codec else 1.0)


def is_pcm_copy(audio_format: AudioFormat, speed: float) -> bool:
    """Whether the file is the PCM itself, at most behind a header: `as_file` makes it without copying."""
    return speed == 1 and audio_format in (AudioFormat.PCM, AudioFormat.WAV)


def as_file(pcm: AudioBuffer, sample_rate: int, audio_format: AudioFormat) -> AudioBuffer:
    """PCM as a file of one of the formats of `is_pcm_copy`. Takes no time. Raises ValueError as `encode`."""
    check(len(pcm), sample_rate)
    return pcm if audio_format is AudioFormat.PCM else PrefixedBuffer(wav_header(len(pcm), sample_rate), pcm)


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
    rate is not positive, or the speed is out of range. Raises EncodingAbandonedError if `abandoned()`, called once per
    second of audio, returns true. `output` is seekable.
    """
    size = size_at(len(pcm), sample_rate, speed)
    pieces = change_tempo(_seconds_of(pcm, sample_rate, abandoned), sample_rate, speed)
    codec = CODECS.get(audio_format)
    if codec is None:
        if audio_format is AudioFormat.WAV:
            output.write(wav_header(size, sample_rate))
        output.writelines(pieces)
        return
    with Muxer(codec, sample_rate, output) as muxer:
        for piece in pieces:
            muxer.add(piece)
        muxer.add(bytes(max(0, codec.min_samples * SAMPLE_BYTES - size)))


def wav_header(size: int | None, sample_rate: int) -> bytes:
    """The header of a WAV file with `size` bytes of PCM; None: it is not known."""
    chunk = struct.pack("<HHIIHH", 1, 1, sample_rate, sample_rate * SAMPLE_BYTES, SAMPLE_BYTES, 8 * SAMPLE_BYTES)
    riff_size, data_size = (_UNKNOWN_BYTES, _UNKNOWN_BYTES) if size is None else (36 + size, size)
    head = struct.pack("<4sI4s4sI", b"RIFF", riff_size, b"WAVE", b"fmt ", len(chunk))
    return head + chunk + struct.pack("<4sI", b"data", data_size)


def _seconds_of(pcm: AudioBuffer, sample_rate: int, abandoned: Callable[[], bool]) -> Iterator[bytes]:
    for second in pcm.pieces(sample_rate * SAMPLE_BYTES):
        if abandoned():
            raise EncodingAbandonedError
        yield second
