import struct

import httpx
import pytest

from balancer.load import client
from tests.support.harness import serve_stub


def wav(data: bytes, *, declared: int | None = None, before: bytes = b"") -> bytes:
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 24_000, 48_000, 2, 16)
    size = len(data) if declared is None else declared
    return b"RIFF" + bytes(4) + b"WAVE" + form + before + struct.pack("<4sI", b"data", size) + data


@pytest.mark.parametrize(
    "body",
    [
        wav(bytes(96_000)),
        wav(bytes(96_000), declared=0xFFFF_FFFF),  # streamed
        wav(bytes(96_000), declared=0),
        wav(bytes(96_000), before=b"LIST" + struct.pack("<I", 3) + b"abc\0"),  # chunks are padded to even sizes
        wav(bytes(96_000)) + b"LIST" + struct.pack("<I", 4) + b"abcd",
    ],
)
def test_length_of_a_wav(body: bytes) -> None:
    assert client.wav_seconds(body) == 2


@pytest.mark.parametrize(
    "body",
    [
        b"RIFF",
        b"{}",
        wav(b""),
        wav(bytes(10), declared=20),
        wav(b"", declared=0xFFFF_FFFF),
        wav(bytes(96_000))[:40],
    ],
)
def test_a_body_that_is_not_a_complete_wav_is_bad_audio(body: bytes) -> None:
    with pytest.raises(client.BadAudioError):
        client.wav_seconds(body)


@pytest.mark.parametrize(
    ("audio_format", "headers", "seconds"),
    [
        ("pcm", {}, 1.0),
        ("pcm", {"content-type": "audio/pcm;rate=48000"}, 0.5),
        ("mp3", {}, None),
        ("mp3", {"x-audio-seconds": "7.5"}, 7.5),
        ("pcm", {"x-audio-seconds": "7.5"}, 7.5),
        ("pcm", {"x-audio-seconds": "nan"}, 1.0),
    ],
)
def test_the_length_comes_from_the_header_or_from_a_known_format(
    audio_format: str, headers: dict[str, str], seconds: float | None
) -> None:
    assert client.audio_seconds(audio_format, httpx.Headers(headers), bytes(48_000)) == seconds


@pytest.mark.parametrize(("audio_format", "body"), [("mp3", b""), ("pcm", b"abc"), ("wav", b"abc")])
def test_a_bad_body_is_bad_audio_in_spite_of_the_header(audio_format: str, body: bytes) -> None:
    with pytest.raises(client.BadAudioError):
        client.audio_seconds(audio_format, httpx.Headers({"x-audio-seconds": "1"}), body)


async def test_a_stream_is_heard_as_it_comes() -> None:
    with serve_stub() as server:
        async with client.SpeechClient(
            server.url, voice=None, audio_format="wav", api_key=None, timeout=30, stream=True
        ) as listener:
            heard = await listener.synthesize("One sentence is spoken here. Another one follows it at once.")
            refused = await listener.synthesize("")
    assert heard.error is None
    assert heard.audio_seconds is not None
    assert heard.audio_seconds > 2
    assert heard.first_sound is not None
    assert refused.error is not None
    assert refused.error.startswith("HTTP 400")
