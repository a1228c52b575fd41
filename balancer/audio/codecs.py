"""The encoders and containers of ffmpeg's libraries that make the compressed formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import av

from balancer.audio.aac_frames import fill, frame_bytes
from balancer.audio.formats import AudioFormat
from balancer.audio.pcm import Frames


class Output(Protocol):
    """A file, or only its `write`: then lengths that are known at the end only stay unknown."""

    def write(self, data: bytes, /) -> object:
        """Take the next bytes."""


@dataclass(frozen=True)
class Codec:
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
CODECS = {
    AudioFormat.MP3: Codec("mp3", "libmp3lame", {"b": "96000", "compression_level": "7"}, min_samples=1),
    AudioFormat.OPUS: Codec("opus", "libopus", {"b": "48000", "compression_level": "5"}, min_samples=1),
    # ADTS has no file header: players recognise it by three consecutive frames of 1024 samples. They play all of them,
    # the one that the encoder adds first and the padding of the last, too: 21 to 43 ms at 48 kHz, twice as much at 24.
    # With bt=0 no frame is larger than the bit rate allows.
    AudioFormat.AAC: Codec(
        "adts",
        "aac",
        {"b": str(_AAC_BIT_RATE), "aac_coder": "fast", "bt": "0"},
        min_samples=2048,
        min_rate=48_000,
        strict_bit_rate=_AAC_BIT_RATE,
    ),
    AudioFormat.FLAC: Codec("flac", "flac"),
}


_STREAM_OPTIONS = {"mp3": {"write_xing": "0"}}
"""Options of muxers for streams: no header with a length."""
_SHORT_PAGES = {"opus": {"page_duration": "200000"}}
"""Pages of 0.2 s, as a listener waits for a whole page; those of files have a second."""


class Muxer:
    """Encodes PCM, piece by piece, into a file. The end of the block ends the file.

    If `output` is seekable, lengths that are known at the end only (LAME tag, STREAMINFO) are written into its header.
    Behind the header, a stream has the bytes of the file, unless it has `short_pages`.
    """

    def __init__(self, codec: Codec, sample_rate: int, output: Output, *, short_pages: bool = False) -> None:
        # Without bitexact, an Ogg stream gets a random serial number.
        options = {"fflags": "+bitexact"}
        if not hasattr(output, "seek"):
            options |= {"flush_packets": "1", **_STREAM_OPTIONS.get(codec.muxer, {})}
        if short_pages:
            options |= _SHORT_PAGES.get(codec.muxer, {})
        self._container = av.open(output, "w", format=codec.muxer, options=options)
        rate = _encoder_rate(codec.encoder, max(sample_rate, codec.min_rate))
        self._stream = self._container.add_stream(codec.encoder, rate=rate, options=dict(codec.options), layout="mono")
        self._frame_bytes = 0 if codec.strict_bit_rate is None else frame_bytes(codec.strict_bit_rate, rate)
        self._frames = Frames(sample_rate)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the file, unless it failed."""
        if error is None:
            self._encode(None)  # flush
        self._container.close()

    def add(self, pcm: bytes) -> None:
        """Encode the next piece."""
        for frame in self._frames.of(pcm):
            self._encode(frame)

    def _encode(self, frame: av.AudioFrame | None) -> None:
        self._container.mux([_filled(packet, self._frame_bytes) for packet in self._stream.encode(frame)])


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
