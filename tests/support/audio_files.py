"""Parts of audio files."""

from __future__ import annotations

import io
import wave

from scripts.support.recogniser import decode
from worker.engines.chatterbox.precision_check.word_recognition import SAMPLE_RATE


def last_seconds(audio: bytes, seconds: float) -> bytes:
    """The last `seconds` of an audio file, as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as output:
        output.setnchannels(1)
        output.setsampwidth(2)
        output.setframerate(SAMPLE_RATE)
        output.writeframes(decode(audio, SAMPLE_RATE)[-2 * round(seconds * SAMPLE_RATE) :])
    return file.getvalue()
