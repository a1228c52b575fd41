"""LiveKit's plugin for OpenAI speaks as it is and in each format. Arguments: URL of the server, text."""

from __future__ import annotations

import asyncio
import json
import sys
from time import monotonic
from typing import Any

from livekit.plugins import openai

CASES: dict[str, dict[str, Any]] = {
    "its defaults": {},
    "instructions": {"instructions": "calm"},
    **{name: {"model": "tts-1", "response_format": name} for name in ("mp3", "wav", "pcm", "opus", "aac", "flac")},
}


async def main(url: str, text: str) -> None:
    """Print a JSON object for each stream."""
    for name, options in CASES.items():
        print(
            json.dumps({"name": name} | await heard(openai.TTS(base_url=f"{url}/v1", api_key="none", **options), text))
        )


async def heard(tts: Any, text: str) -> dict[str, Any]:
    """The times and the length of what was heard, or the error."""
    began, first, seconds = monotonic(), 0.0, 0.0
    try:
        async with tts.synthesize(text) as stream:
            async for audio in stream:
                first = first or monotonic() - began
                seconds += audio.frame.duration
    except Exception as error:  # noqa: BLE001 - it is the result
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        await tts.aclose()
    return {"first": first, "end": monotonic() - began, "seconds": seconds}


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
