"""The audio formats that the API offers."""

from __future__ import annotations

from enum import StrEnum


class AudioFormat(StrEnum):
    """An audio file format. The value is its name in the API."""

    MP3 = "mp3"
    OPUS = "opus"
    AAC = "aac"
    FLAC = "flac"
    WAV = "wav"
    PCM = "pcm"

    @property
    def media_type(self) -> str:
        """The value of the Content-Type header."""
        return _MEDIA_TYPES[self]

    @property
    def suffix(self) -> str:
        """File name extension, with its dot."""
        return f".{self.value}"


_MEDIA_TYPES = {
    AudioFormat.MP3: "audio/mpeg",
    AudioFormat.OPUS: "audio/ogg; codecs=opus",
    AudioFormat.AAC: "audio/aac",
    AudioFormat.FLAC: "audio/flac",
    AudioFormat.WAV: "audio/wav",
    AudioFormat.PCM: "audio/pcm",  # not audio/L16, which is big-endian
}
