"""The OpenAI client for Python hears streams in each format, and as events. Arguments: URL of the server, text."""

from __future__ import annotations

import base64
import json
import sys
from time import monotonic
from typing import Literal

import openai

Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
FORMATS: tuple[Format, ...] = ("pcm", "wav", "mp3", "opus", "aac", "flac")
BYTES_PER_SECOND = 48_000


def main(url: str, text: str) -> None:
    """Print a JSON object for each stream."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none needed", max_retries=0) as client:
        for audio_format in FORMATS:
            began, first, size = monotonic(), 0.0, 0
            with client.audio.speech.with_streaming_response.create(
                model="gpt-4o-mini-tts", voice="alloy", input=text, response_format=audio_format
            ) as response:
                for piece in response.iter_bytes():
                    first = first or monotonic() - began
                    size += len(piece)
            seconds = {"pcm": size / BYTES_PER_SECOND, "wav": (size - 44) / BYTES_PER_SECOND}.get(audio_format)
            report(audio_format, first, monotonic() - began, seconds)
        began, first, size = monotonic(), 0.0, 0
        with client.audio.speech.with_streaming_response.create(
            model="gpt-4o-mini-tts", voice="alloy", input=text, response_format="pcm", stream_format="sse"
        ) as response:
            for line in response.iter_lines():
                if line.startswith("data: ") and "audio" in (event := json.loads(line.removeprefix("data: "))):
                    first = first or monotonic() - began
                    size += len(base64.b64decode(event["audio"]))
        report("sse", first, monotonic() - began, size / BYTES_PER_SECOND)


def report(name: str, first: float, end: float, seconds: float | None) -> None:
    """Print what was heard; `seconds` is None where the client does not decode."""
    print(json.dumps({"name": name, "first": first, "end": end, "seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
