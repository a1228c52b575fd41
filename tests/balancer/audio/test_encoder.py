"""Every encoded file is decoded by a real ffmpeg, of another build than the encoder's."""

from __future__ import annotations

import io
import math
import re
import subprocess
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import av
import imageio_ffmpeg
import numpy as np
import pytest

from balancer.audio import encoder
from balancer.audio import pcm as pcm_module
from balancer.audio.buffers import MemoryBuffer
from balancer.audio.encoder import EncodingAbandonedError, as_file, is_pcm_copy
from balancer.audio.formats import AudioFormat
from balancer.audio.tempo import MAX_SPEED, MIN_SPEED

RATE = 24_000
SPEEDS = (0.25, 0.5, 0.8, 1.5, 2.0, 3.0, 4.0)
EXACT = (AudioFormat.WAV, AudioFormat.PCM, AudioFormat.FLAC)
LOSSY = (AudioFormat.MP3, AudioFormat.OPUS, AudioFormat.AAC)

AAC_FRAME = 1024 * RATE // 48_000
"""Samples of a frame, which is encoded at 48 kHz. ADTS cannot say how much of its frames is padding, so a decoder plays
all of it: one frame that primes the encoder, then the source padded to whole frames."""


def tone(seconds: float, rate: int = RATE, hertz: float = 440.0) -> bytes:
    """A sine at a quarter of full scale."""
    times = np.arange(round(seconds * rate)) / rate
    pcm: bytes = (8_192 * np.sin(2 * np.pi * hertz * times)).astype("<i2").tobytes()
    return pcm


def encode(pcm: bytes, rate: int, audio_format: AudioFormat, speed: float = 1.0) -> bytes:
    """The complete file."""
    output = io.BytesIO()
    encoder.encode(MemoryBuffer(pcm), rate, audio_format, speed, output)
    return output.getvalue()


def duration(pcm: bytes, rate: int) -> float:
    return pcm_module.duration(len(pcm), rate)


def samples(pcm: bytes) -> int:
    return len(pcm) // 2


def ffmpeg(*arguments: str, stdin: bytes) -> subprocess.CompletedProcess[bytes]:
    program = imageio_ffmpeg.get_ffmpeg_exe()
    return subprocess.run([program, "-hide_banner", *arguments], input=stdin, capture_output=True, check=False)


def decode(file: bytes, audio_format: AudioFormat) -> bytes:
    """The file decoded by ffmpeg, as PCM at RATE."""
    raw = ("-f", "s16le", "-ar", str(RATE), "-ac", "1")
    source = (*raw, "-i", "-") if audio_format is AudioFormat.PCM else ("-i", "-")
    played = ffmpeg("-v", "error", "-xerror", *source, *raw, "-", stdin=file)
    assert played.returncode == 0
    assert played.stderr == b""
    return played.stdout


def peak_hertz(pcm: bytes) -> float:
    """Frequency of the strongest partial; the transform is padded to a grid finer than 0.1 Hz."""
    signal = np.frombuffer(pcm, "<i2").astype(float)
    spectrum = np.abs(np.fft.rfft(signal * np.hanning(len(signal)), n=2**18))
    return float(np.argmax(spectrum)) * RATE / 2**18


def loudness(pcm: bytes) -> float:
    """Root mean square, in steps of the 16-bit scale."""
    return float(np.sqrt(np.mean(np.frombuffer(pcm, "<i2").astype(float) ** 2)))


@pytest.mark.parametrize("audio_format", EXACT)
def test_lossless_formats_preserve_every_sample(audio_format: AudioFormat) -> None:
    pcm = np.random.default_rng(1).integers(-(2**15), 2**15, 30_001).astype("<i2").tobytes()
    assert decode(encode(pcm, RATE, audio_format), audio_format) == pcm


@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.345])
@pytest.mark.parametrize("audio_format", [AudioFormat.MP3, AudioFormat.OPUS])
def test_padding_of_mp3_and_opus_is_trimmed_by_the_player(audio_format: AudioFormat, seconds: float) -> None:
    # LAME's tag, and pre-skip with the last granule position, state the padding to the sample.
    pcm = tone(seconds)
    assert samples(decode(encode(pcm, RATE, audio_format), audio_format)) == samples(pcm)


@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.345])
def test_aac_is_longer_by_its_padding_only(seconds: float) -> None:
    pcm = tone(seconds)
    added = samples(decode(encode(pcm, RATE, AudioFormat.AAC), AudioFormat.AAC)) - samples(pcm)
    assert AAC_FRAME <= added < 2 * AAC_FRAME


def phrases(seconds: float) -> bytes:
    """Tones of a second, each softer than the last, with pauses; silence first, as before speech."""
    times = np.arange(round(seconds * RATE)) / RATE
    loudness = np.where(times % 1 < 0.2, 0, 16_000 / (1 + times % 7))
    noise = np.random.default_rng(2).normal(0, 0.2, len(times))
    pcm: bytes = (
        (loudness * (np.sin(2 * np.pi * 180 * times) * 0.6 + noise)).clip(-(2**15), 2**15 - 1).astype("<i2").tobytes()
    )
    return pcm


@pytest.mark.parametrize("seconds", [0.3, 1.0, 5.0, 60.0])
@pytest.mark.parametrize("audio_format", [AudioFormat.WAV, AudioFormat.FLAC, *LOSSY])
def test_players_show_the_length(tmp_path: Path, audio_format: AudioFormat, seconds: float) -> None:
    path = tmp_path / f"speech{audio_format.suffix}"
    path.write_bytes(encode(phrases(seconds), RATE, audio_format))
    with av.open(path) as container:
        assert container.duration is not None
        shown = container.duration / av.time_base
    assert shown == pytest.approx(seconds, abs=0.05)
    assert duration(decode(path.read_bytes(), audio_format), RATE) == pytest.approx(seconds, abs=0.05)


def test_aac_has_a_constant_bit_rate() -> None:
    file = encode(phrases(5.0), RATE, AudioFormat.AAC)
    size = int.from_bytes(file[3:6], "big") >> 5 & 2**13 - 1
    assert len(file) % size == 0
    headers = {file[place : place + 7] for place in range(0, len(file), size)}
    assert len(headers) == 1


@pytest.mark.parametrize("speed", [1.0, *SPEEDS])
@pytest.mark.parametrize("audio_format", AudioFormat)
def test_pitch_stays_and_duration_scales(audio_format: AudioFormat, speed: float) -> None:
    pcm = tone(2.0)
    played = decode(encode(pcm, RATE, audio_format, speed), audio_format)
    padding = 2 * AAC_FRAME if audio_format is AudioFormat.AAC else 0
    assert 0 <= samples(played) - round(samples(pcm) / speed) <= padding
    # The shortest result lasts half a second: blended windows blur its peak by a few hertz at most.
    assert peak_hertz(played) == pytest.approx(440, abs=4)
    # A quarter of full scale: the lossy codecs must not change the level.
    assert loudness(played[: len(pcm) // 5]) == pytest.approx(8_192 / math.sqrt(2), rel=0.1)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("audio_format", [AudioFormat.WAV, AudioFormat.FLAC, *LOSSY])
def test_other_engine_rates_keep_pitch_and_duration(audio_format: AudioFormat, rate: int) -> None:
    played = decode(encode(tone(1.5, rate), rate, audio_format), audio_format)
    padding = 2 * AAC_FRAME / RATE if audio_format is AudioFormat.AAC else 0  # elsewhere resampling rounds
    assert -0.001 <= duration(played, RATE) - 1.5 <= padding + 0.001
    assert peak_hertz(played) == pytest.approx(440, abs=1)


@pytest.mark.parametrize(
    ("audio_format", "container", "codec"),
    [
        (AudioFormat.MP3, "mp3", "mp3"),
        (AudioFormat.OPUS, "ogg", "opus"),
        (AudioFormat.AAC, "aac", "aac"),
        (AudioFormat.FLAC, "flac", "flac"),
        (AudioFormat.WAV, "wav", "pcm_s16le"),
    ],
)
def test_file_has_the_requested_format(audio_format: AudioFormat, container: str, codec: str) -> None:
    report = ffmpeg("-i", "-", stdin=encode(tone(0.5), RATE, audio_format)).stderr.decode()
    assert re.search(rf"Input #0, {container}, from", report)
    assert re.search(rf"Audio: {codec}\b.*\bmono\b", report)


def test_wav_header_has_the_true_sizes() -> None:
    pcm = tone(0.5)
    file = encode(pcm, RATE, AudioFormat.WAV)
    assert int.from_bytes(file[4:8], "little") == len(file) - 8
    with wave.open(io.BytesIO(file)) as reader:
        assert (reader.getnchannels(), reader.getsampwidth(), reader.getframerate()) == (1, 2, RATE)
        assert reader.readframes(reader.getnframes()) == pcm


def test_flac_header_has_the_number_of_samples() -> None:
    file = encode(tone(0.5), RATE, AudioFormat.FLAC)
    # STREAMINFO follows the mark and its block header; the count is the low 36 bits of bytes 10 to 18.
    assert int.from_bytes(file[8 + 10 : 8 + 18], "big") & (2**36 - 1) == RATE // 2


def test_mp3_header_has_the_number_of_frames_and_the_delay() -> None:
    file = encode(tone(1.0), RATE, AudioFormat.MP3)
    tag = file.index(b"Info")
    flags, frames = (int.from_bytes(file[tag + at : tag + at + 4], "big") for at in (4, 8))
    assert flags & 1
    # An MPEG-2 frame has 576 samples; the encoder's delay takes another one or two.
    assert 1 <= frames - math.ceil(RATE / 576) <= 2
    delay = int.from_bytes(file[tag + 141 : tag + 144], "big") >> 12
    assert delay == 576


@pytest.mark.parametrize("audio_format", [AudioFormat.WAV, AudioFormat.PCM])
def test_a_file_that_is_the_pcm_is_made_without_encoding(audio_format: AudioFormat) -> None:
    assert is_pcm_copy(audio_format, 1.0)
    assert not is_pcm_copy(audio_format, 0.5)
    pcm = tone(2.5)
    assert bytes(as_file(MemoryBuffer(pcm), RATE, audio_format)) == encode(pcm, RATE, audio_format)


@pytest.mark.parametrize("audio_format", AudioFormat)
def test_an_abandoned_encoding_ends_within_a_second_of_audio(audio_format: AudioFormat) -> None:
    asked = iter((False, False, True))
    with pytest.raises(EncodingAbandonedError):
        encoder.encode(MemoryBuffer(tone(60)), RATE, audio_format, 2.0, io.BytesIO(), lambda: next(asked))


@pytest.mark.parametrize("speed", [MIN_SPEED, 0.8, 1.0, 3.0, MAX_SPEED])
@pytest.mark.parametrize("count", [0, 1, 2, 240, 1_000])
@pytest.mark.parametrize("audio_format", AudioFormat)
def test_the_shortest_audio_makes_a_playable_file(audio_format: AudioFormat, count: int, speed: float) -> None:
    pcm = tone(count / RATE)
    assert samples(pcm) == count
    played = decode(encode(pcm, RATE, audio_format, speed), audio_format)
    if audio_format in EXACT:
        assert samples(played) == round(count / speed)


@pytest.mark.parametrize("audio_format", AudioFormat)
def test_encoding_is_deterministic(audio_format: AudioFormat) -> None:
    pcm = tone(0.7)
    assert encode(pcm, RATE, audio_format, 1.3) == encode(pcm, RATE, audio_format, 1.3)


def test_threads_encode_concurrently() -> None:
    jobs = [(tone(0.5 + n / 10), list(AudioFormat)[n % len(AudioFormat)], (1.0, 1.7)[n % 2]) for n in range(8)]
    alone = [encode(pcm, RATE, audio_format, speed) for pcm, audio_format, speed in jobs]
    start = Barrier(len(jobs))

    def work(n: int) -> list[bytes]:
        start.wait(timeout=30)
        rotated = [*jobs[n:], *jobs[:n]]
        return [encode(pcm, RATE, audio_format, speed) for pcm, audio_format, speed in rotated]

    with ThreadPoolExecutor(len(jobs)) as pool:
        for n, files in enumerate(pool.map(work, range(len(jobs)))):
            assert files == [*alone[n:], *alone[:n]]


@pytest.mark.parametrize("speed", [0.0, -1.0, 0.2499, 4.001, 5.0, math.inf, math.nan])
def test_speed_out_of_range_is_refused(speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        encode(tone(0.1), RATE, AudioFormat.WAV, speed)


@pytest.mark.parametrize("audio_format", AudioFormat)
def test_half_a_sample_is_refused(audio_format: AudioFormat) -> None:
    with pytest.raises(ValueError, match="sample"):
        encode(b"\0\0\0", RATE, audio_format)


@pytest.mark.parametrize("rate", [0, -24_000])
def test_rate_that_is_not_positive_is_refused(rate: int) -> None:
    with pytest.raises(ValueError, match="rate"):
        encode(tone(0.1), rate, AudioFormat.WAV)


@pytest.mark.parametrize(
    ("audio_format", "media_type", "suffix"),
    [
        (AudioFormat.MP3, "audio/mpeg", ".mp3"),
        (AudioFormat.OPUS, "audio/ogg; codecs=opus", ".opus"),
        (AudioFormat.AAC, "audio/aac", ".aac"),
        (AudioFormat.FLAC, "audio/flac", ".flac"),
        (AudioFormat.WAV, "audio/wav", ".wav"),
        (AudioFormat.PCM, "audio/pcm", ".pcm"),
    ],
)
def test_formats_know_their_media_type_and_suffix(audio_format: AudioFormat, media_type: str, suffix: str) -> None:
    assert (audio_format.media_type, audio_format.suffix) == (media_type, suffix)
