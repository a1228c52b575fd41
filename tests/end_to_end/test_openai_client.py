"""The official OpenAI client, unchanged but for its address."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import imageio_ffmpeg
import openai
import pytest

from scripts.support.recogniser import audio_seconds, word_error_rate
from tests.end_to_end.conftest import Chorus
from tests.support.harness import wait_until

SENTENCE = "The president spoke to the nation last night."
Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]


@pytest.fixture(scope="module")
def client(one_worker_chorus: Chorus) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{one_worker_chorus.url}/v1", api_key="none needed", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("audio_format", ["mp3", "opus", "aac", "flac", "wav"])
def test_every_format_plays_and_says_the_words(client: openai.OpenAI, audio_format: Format) -> None:
    reference = client.audio.speech.create(
        model="tts-1", voice="alloy", input=SENTENCE, response_format="wav", extra_body={"seed": 5}
    ).content
    audio = client.audio.speech.create(
        model="tts-1", voice="alloy", input=SENTENCE, response_format=audio_format, extra_body={"seed": 5}
    ).content

    # AAC in ADTS cannot say how much of its frames is padding: up to 2,047 samples at 48 kHz.
    assert audio_seconds(audio) == pytest.approx(audio_seconds(reference), abs=0.05 if audio_format == "aac" else 0.03)
    assert word_error_rate(SENTENCE, audio) <= 0.1


def test_pcm_is_the_wav_without_its_header(client: openai.OpenAI) -> None:
    def ask(audio_format: Format) -> bytes:
        return client.audio.speech.create(
            model="gpt-4o-mini-tts", voice="nova", input=SENTENCE, response_format=audio_format, extra_body={"seed": 5}
        ).content

    assert ask("wav")[44:] == ask("pcm")


def test_the_default_format_is_openais(client: openai.OpenAI) -> None:
    answer = client.audio.speech.create(model="tts-1-hd", voice="shimmer", input=SENTENCE)
    assert answer.response.headers["Content-Type"] == "audio/mpeg"


def test_the_answer_can_be_streamed_to_a_file(client: openai.OpenAI, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("audio") / "speech.mp3"
    with client.audio.speech.with_streaming_response.create(
        model="hibari", voice="default", input=SENTENCE, extra_body={"seed": 5}
    ) as answer:
        answer.stream_to_file(file)
    assert word_error_rate(SENTENCE, file.read_bytes()) <= 0.1


SENTENCES = f"{SENTENCE} The weather was fine. Nobody answered the telephone in the morning."


def test_a_long_text_is_streamed(client: openai.OpenAI) -> None:
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input=SENTENCES, response_format="mp3", extra_body={"seed": 5}
    ) as answer:
        assert answer.headers["transfer-encoding"] == "chunked"
        pieces = [piece for piece in answer.iter_bytes() if piece]
    assert len(pieces) > 1
    assert word_error_rate(SENTENCES, b"".join(pieces)) <= 0.15


BEGINNING = {"wav": 2**17}
"""Bytes that ffmpeg wants to see first: in a WAV it looks for other formats in disguise. Else one piece will do."""


@pytest.mark.parametrize("audio_format", ["mp3", "opus", "aac", "flac", "wav"])
def test_ffmpeg_plays_what_comes_through_a_pipe_before_the_end_is_there(
    client: openai.OpenAI, audio_format: Format, tmp_path: Path
) -> None:
    heard = tmp_path / "heard.pcm"
    source = ["-probesize", "8192", "-i", "pipe:0"]
    target = ["-f", "s16le", "-ar", "24000", "-ac", "1", "-flush_packets", "1", str(heard)]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *source, *target]
    with (
        client.audio.speech.with_streaming_response.create(
            model="tts-1", voice="alloy", input=SENTENCES, response_format=audio_format
        ) as answer,
        subprocess.Popen(command, stdin=subprocess.PIPE) as player,
    ):
        assert player.stdin is not None
        pieces = (piece for piece in answer.iter_bytes() if piece)
        sent = 0
        while sent <= BEGINNING.get(audio_format, 0):
            sent += player.stdin.write(next(pieces))
        player.stdin.flush()
        try:
            # A tenth of a second, while nothing more has come to it.
            wait_until(lambda: heard.exists() and heard.stat().st_size >= 4800)
        finally:
            for piece in pieces:
                player.stdin.write(piece)
            player.stdin.close()
    assert heard.stat().st_size / 48_000 > 5


@pytest.mark.parametrize("text", [SENTENCE, SENTENCES])
def test_events_carry_the_audio(client: openai.OpenAI, text: str) -> None:
    with client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts",
        voice="alloy",
        input=text,
        response_format="mp3",
        stream_format="sse",
        extra_body={"seed": 5},
    ) as answer:
        events = [json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line.startswith("data: ")]
    *deltas, done = events
    audio = b"".join(base64.b64decode(delta["audio"]) for delta in deltas if delta["type"] == "speech.audio.delta")
    assert done["type"] == "speech.audio.done"
    assert word_error_rate(text, audio) <= 0.15


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["hibari", "tts-1", "tts-1-hd", "gpt-4o-mini-tts"]
    assert client.models.retrieve("tts-1").owned_by == "chorus"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


def test_its_exceptions_tell_what_is_wrong(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no model 'tts-2'") as unknown_model:
        client.audio.speech.create(model="tts-2", voice="alloy", input=SENTENCE)
    assert unknown_model.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="there is no voice 'nobody'; there are: default"):
        client.audio.speech.create(model="tts-1", voice="nobody", input=SENTENCE)
    with pytest.raises(openai.BadRequestError, match="5001 characters; the limit is 5000"):
        client.audio.speech.create(model="tts-1", voice="alloy", input="a" * 5001)
