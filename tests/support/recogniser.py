"""Listens to audio with a real recogniser, to test that it says what was asked."""

from __future__ import annotations

import io
import subprocess
import wave

import imageio_ffmpeg
import jiwer
from pocketsphinx import Decoder

HEARING_RATE = 16_000


def decode(audio: bytes, rate: int) -> bytes:
    """Any audio file as ffmpeg plays it: signed 16-bit mono PCM at `rate` samples a second.

    Raises CalledProcessError where ffmpeg finds anything wrong with the file.
    """
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-xerror", "-i", "pipe:0"]
    command += ["-f", "s16le", "-ac", "1", "-ar", str(rate), "pipe:1"]
    return subprocess.run(command, input=audio, capture_output=True, check=True).stdout


def seconds(audio: bytes) -> float:
    """How long ffmpeg plays the file."""
    return len(decode(audio, HEARING_RATE)) / 2 / HEARING_RATE


def end_of(audio: bytes, length: float) -> bytes:
    """The last `length` seconds of an audio file, as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as output:
        output.setnchannels(1)
        output.setsampwidth(2)
        output.setframerate(HEARING_RATE)
        output.writeframes(decode(audio, HEARING_RATE)[-2 * round(length * HEARING_RATE) :])
    return file.getvalue()


def hear(audio: bytes) -> str:
    """The words in an audio file, in lower case."""
    decoder = Decoder(samprate=HEARING_RATE, loglevel="FATAL")
    decoder.start_utt()
    decoder.process_raw(decode(audio, HEARING_RATE), full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return hypothesis.hypstr if hypothesis is not None else ""


def word_error_rate(said: str, audio: bytes) -> float:
    """Share of the words in `said` that the recogniser hears wrong, misses or adds."""
    words = "".join(letter for letter in said.lower() if letter.isalpha() or letter in " '")
    return float(jiwer.wer(words, hear(audio)))
