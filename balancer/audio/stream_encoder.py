"""Encodes PCM as an audio stream, which players play from its first bytes on, while the PCM is made."""

from __future__ import annotations

from contextlib import ExitStack
from io import BytesIO

from balancer.audio.buffers import MemoryBuffer
from balancer.audio.codecs import CODECS, Muxer
from balancer.audio.encoder import encode, wav_header
from balancer.audio.formats import AudioFormat
from balancer.audio.tempo import Tempo, size_at
from worker.contract import SAMPLE_BYTES

MAX_HEADER_BYTES = 64
"""No header of a stream is longer."""


class _Collected:
    """An output that cannot be sought in."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes, /) -> None:
        self._data += data

    def take(self) -> bytes:
        """The bytes written since the last call."""
        data = bytes(self._data)
        self._data.clear()
        return data


class StreamEncoder:
    """One stream. It blocks and is CPU-bound: call it off the event loop, from one thread at a time.

    Without `short_pages`, by which a listener to the first words waits less, it has behind its header the very bytes of
    the file with the same audio. Raises ValueError if the rate is not positive, or the speed is out of range.
    """

    def __init__(self, sample_rate: int, audio_format: AudioFormat, speed: float, *, short_pages: bool = True) -> None:
        size_at(0, sample_rate, speed)
        self._sample_rate = sample_rate
        self._tempo = None if speed == 1 else Tempo(sample_rate, speed)
        self._output = _Collected()
        self._codec = CODECS.get(audio_format)
        self._muxing = ExitStack()
        self._muxer: Muxer | None = None
        if self._codec is not None:
            muxer = Muxer(self._codec, sample_rate, self._output, short_pages=short_pages)
            self._muxer = self._muxing.enter_context(muxer)
        if audio_format is AudioFormat.WAV:
            self._output.write(wav_header(None, sample_rate))
        self._size = 0

    def feed(self, pcm: bytes) -> bytes:
        """The bytes of the stream that are ready once `pcm` has been added."""
        self._add(pcm if self._tempo is None else self._tempo.feed(pcm))
        return self._output.take()

    def finish(self) -> bytes:
        """The rest of the stream."""
        if self._tempo is not None:
            self._add(self._tempo.finish())
        if self._codec is not None:
            self._add(bytes(max(0, self._codec.min_samples * SAMPLE_BYTES - self._size)))
        self._muxing.close()
        return self._output.take()

    def _add(self, pcm: bytes) -> None:
        self._size += len(pcm)
        if self._muxer is None:
            self._output.write(pcm)
        else:
            self._muxer.add(pcm)


def longer_header(sample_rate: int, audio_format: AudioFormat, speed: float) -> int:
    """Bytes by which the header of a file is longer than that of a stream without short pages."""
    file = BytesIO()
    encode(MemoryBuffer(b""), sample_rate, audio_format, speed, file)
    stream = StreamEncoder(sample_rate, audio_format, speed, short_pages=False).finish()
    return len(file.getvalue()) - len(stream)
