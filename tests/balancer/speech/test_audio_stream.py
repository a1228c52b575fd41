"""A stream's first sound, held back until what is made lets it play without a gap."""

from __future__ import annotations

import asyncio

from balancer.audio.formats import AudioFormat
from balancer.audio.held_audio import HeldAudio
from balancer.metrics import Metrics
from balancer.requests.speech_request import SpeechRequest
from balancer.scheduling.playout_delay import StreamPace
from balancer.scheduling.queued_utterance import Terms
from balancer.scheduling.stream_headroom import StreamHeadroom
from balancer.settings.limits import MemorySettings
from balancer.settings.speech import PauseSettings, StreamSettings
from balancer.speech.audio_stream import AudioStream
from balancer.speech.encoder_pool import EncoderPool
from balancer.speech.place import Place
from balancer.text.segments import Boundary, Segment
from tests.support.harness import TIMEOUT
from voices.registry import Voice

RATE = 24_000
SECOND = b"\x00\x20" * RATE


async def test_each_piece_that_is_made_counts_for_the_start() -> None:
    """Of a text that is expected to take a minute, nothing is heard after the first piece, but once more is made."""
    held, made = HeldAudio(MemorySettings()), asyncio.Event()

    async def speak(stream: AudioStream) -> None:
        stream.begin_segment(0)
        stream.on_pcm(0, SECOND)
        await made.wait()
        for _ in range(80):
            stream.on_pcm(0, SECOND)
        await asyncio.Event().wait()

    stream = AudioStream(
        [Segment("A text.", Boundary.END)],
        speak,
        [10.0],
        lambda _: StreamPace(1, 10 / 60),
        SpeechRequest("A text.", Voice(name="default", engine="*"), {}, 1, AudioFormat.PCM, 1.0),
        Place(Terms("caller")),
        sample_rate=RATE,
        pauses=PauseSettings(),
        settings=StreamSettings(stream_delay_seconds=600),
        timeout=3600,
        held=held,
        encoders=EncoderPool(held, limit=100, threads=1),
        metrics=Metrics("turbo"),
        headroom=StreamHeadroom(lambda: 1.0, best_effort=True),
        on_end=lambda _: None,
    )
    beginning = asyncio.create_task(stream.begin())
    for _ in range(20):  # every task runs until it waits
        await asyncio.sleep(0)
    assert not beginning.done()
    made.set()
    async with asyncio.timeout(TIMEOUT):
        await beginning
        assert await anext(stream) == SECOND
    await stream.aclose()
