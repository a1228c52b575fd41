"""Streams are played from their first bytes on, and have every sample of the PCM."""

from __future__ import annotations

import subprocess
from io import BytesIO
from itertools import pairwise

import imageio_ffmpeg
import numpy as np
import pytest

from balancer.audio.buffers import MemoryBuffer
from balancer.audio.encoder import encode
from balancer.audio.formats import AudioFormat
from balancer.audio.stream_encoder import MAX_HEADER_BYTES, StreamEncoder, longer_header

RATE = 24_000
RAW = {AudioFormat.PCM: ["-f", "s16le", "-ar", str(RATE), "-ac", "1"]}
PADDING = {AudioFormat.MP3: 0.1, AudioFormat.AAC: 0.05, AudioFormat.OPUS: 0.001}
"""Seconds that a player plays beyond the source, at most."""


def speech_like(seconds: float) -> bytes:
    times = np.arange(round(seconds * RATE)) / RATE
    loudness = 8_000 * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * times))
    pcm: bytes = (loudness * np.sin(2 * np.pi * 300 * times)).astype("<i2").tobytes()
    return pcm


def decoded(stream: bytes, audio_format: AudioFormat) -> bytes:
    """What ffmpeg plays of a stream that comes through a pipe, however it ends."""
    program = imageio_ffmpeg.get_ffmpeg_exe()
    source = [*RAW.get(audio_format, []), "-i", "pipe:0"]
    target = ["-f", "s16le", "-ar", str(RATE), "-ac", "1", "pipe:1"]
    command = [program, "-hide_banner", "-loglevel", "error", *source, *target]
    return subprocess.run(command, input=stream, capture_output=True, check=False).stdout


def stream(pcm: bytes, audio_format: AudioFormat, speed: float = 1.0, size: int = 4_800) -> list[bytes]:
    """What each piece of PCM adds to the stream, and the end of it."""
    encoder = StreamEncoder(RATE, audio_format, speed)
    return [*[encoder.feed(pcm[start : start + size]) for start in range(0, len(pcm), size)], encoder.finish()]


@pytest.mark.parametrize("speed", [1.0, 1.5])
@pytest.mark.parametrize("audio_format", AudioFormat)
def test_a_stream_plays_to_its_end(audio_format: AudioFormat, speed: float) -> None:
    pcm = speech_like(3.0)
    played = decoded(b"".join(stream(pcm, audio_format, speed)), audio_format)
    excess = len(played) / 2 / RATE - 3.0 / speed
    assert -0.001 <= excess <= PADDING.get(audio_format, 0) + 0.001
    if audio_format in (AudioFormat.WAV, AudioFormat.PCM, AudioFormat.FLAC) and speed == 1:
        assert played == pcm


@pytest.mark.parametrize("audio_format", AudioFormat)
def test_what_has_come_so_far_is_played(audio_format: AudioFormat) -> None:
    pieces = stream(speech_like(4.0), audio_format)
    half = b"".join(pieces[: len(pieces) // 2])
    assert len(decoded(half, audio_format)) / 2 / RATE > 1.5


@pytest.mark.parametrize("audio_format", AudioFormat)
def test_the_shortest_stream_is_playable(audio_format: AudioFormat) -> None:
    played = decoded(b"".join(stream(speech_like(0.02), audio_format)), audio_format)
    assert len(played) / 2 / RATE >= 0.02


def test_a_wav_stream_says_that_its_length_is_not_known() -> None:
    head = stream(speech_like(0.1), AudioFormat.WAV)[0][:44]
    assert head[:4] == b"RIFF"
    assert head[36:44] == b"data\xff\xff\xff\xff"


@pytest.mark.parametrize("speed", [0.1, 5.0])
def test_speed_out_of_range_is_refused(speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        StreamEncoder(RATE, AudioFormat.MP3, speed)


@pytest.mark.parametrize("speed", [1.0, 1.5])
@pytest.mark.parametrize("audio_format", AudioFormat)
def test_without_short_pages_a_stream_has_the_bytes_of_the_file(audio_format: AudioFormat, speed: float) -> None:
    pcm = speech_like(3.0)
    encoder = StreamEncoder(RATE, audio_format, speed, short_pages=False)
    cuts = [0, 2, 2, 50_000, 51_234, len(pcm)]
    streamed = b"".join(encoder.feed(pcm[start:end]) for start, end in pairwise(cuts)) + encoder.finish()
    file = BytesIO()
    encode(MemoryBuffer(pcm), RATE, audio_format, speed, file)
    longer = longer_header(RATE, audio_format, speed)
    assert streamed[MAX_HEADER_BYTES:] == file.getvalue()[MAX_HEADER_BYTES + longer :]
