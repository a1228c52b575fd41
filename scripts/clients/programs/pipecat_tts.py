"""Pipecat's service for OpenAI's speech speaks as it is and with instructions. Arguments: URL of the server, text."""

from __future__ import annotations

import asyncio
import json
import sys
from time import monotonic
from typing import Any

from pipecat.frames.frames import EndFrame, ErrorFrame, TTSAudioRawFrame, TTSSpeakFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineParams, PipelineTask
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.openai.tts import OPENAI_SAMPLE_RATE, OpenAITTSService

CASES: dict[str, dict[str, Any]] = {
    "its defaults": {},
    "instructions": {"instructions": "calm"},
    "tts-1, voice nova": {"model": "tts-1", "voice": "nova"},
}


class Listener(FrameProcessor):  # type: ignore[misc]
    """Takes the audio at the end of a pipeline."""

    def __init__(self) -> None:
        super().__init__()
        self.began = monotonic()
        self.first = 0.0
        self.end = 0.0
        self.size = 0
        self.error = ""

    async def process_frame(self, frame: Any, direction: Any) -> None:
        """Take one frame."""
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            self.end = monotonic() - self.began
            self.first = self.first or self.end
            self.size += len(frame.audio)
        await self.push_frame(frame, direction)


async def main(url: str, text: str) -> None:
    """Print a JSON object for each stream."""
    for name, settings in CASES.items():
        service = OpenAITTSService(base_url=f"{url}/v1", api_key="none", settings=OpenAITTSService.Settings(**settings))
        print(json.dumps({"name": name} | await heard(service, text)))


async def heard(service: Any, text: str) -> dict[str, Any]:
    """The times and the length of what was heard, or the error."""
    listener = Listener()
    task = PipelineTask(Pipeline([service, listener]), params=PipelineParams(audio_out_sample_rate=OPENAI_SAMPLE_RATE))
    errors: list[str] = []

    @task.event_handler("on_pipeline_error")  # type: ignore[untyped-decorator]
    async def on_error(_: Any, frame: ErrorFrame) -> None:
        errors.append(str(frame.error))

    listener.began = monotonic()
    await task.queue_frames([TTSSpeakFrame(text), EndFrame()])
    await PipelineRunner(handle_sigint=False).run(task)
    if errors:
        return {"error": errors[0]}
    return {"first": listener.first, "end": listener.end, "seconds": listener.size / 2 / OPENAI_SAMPLE_RATE}


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
