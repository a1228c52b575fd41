"""What a speech recogniser understands of an audio file, for tests and for `scripts/chaos`; needs the extra `test`."""

from __future__ import annotations

import subprocess
from functools import lru_cache

import imageio_ffmpeg

from worker.engines.chatterbox.precision_check.word_errors import WordErrors
from worker.engines.chatterbox.precision_check.word_recognition import SAMPLE_RATE, recognise, words


def decode(audio: bytes, rate: int) -> bytes:
    """An audio file of any kind, decoded by ffmpeg to signed 16-bit mono PCM at `rate` samples per second.

    Raises CalledProcessError where ffmpeg finds an error in the file.
    """
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-xerror", "-i", "pipe:0"]
    command += ["-f", "s16le", "-ac", "1", "-ar", str(rate), "pipe:1"]
    return subprocess.run(command, input=audio, capture_output=True, check=True).stdout


def audio_seconds(audio: bytes) -> float:
    """The length of an audio file in seconds, as ffmpeg decodes it."""
    return len(decode(audio, SAMPLE_RATE)) / 2 / SAMPLE_RATE


def word_errors(text: str, audio: bytes) -> WordErrors:
    """Compare a text, which must have words, with the transcript of an audio file of any kind."""
    return WordErrors.count(words(text), _transcript(audio))


@lru_cache(maxsize=32)
def _transcript(audio: bytes) -> str:
    # The readings of a text are compared with one and the same audio, and answers are the same where texts and seeds
    # are. A second of audio takes half a second.
    return recognise(decode(audio, SAMPLE_RATE))


def word_error_rate(text: str, audio: bytes) -> float:
    """The word error rate of an audio file of any kind that speaks `text`."""
    return word_errors(text, audio).rate
