"""Drives one Chatterbox engine serially, from two threads at once, and through the runner, and compares the audio.

two_threads.py ENGINE CHECKPOINT CACHE VOICES

VOICES is a folder with two voices. The program prints one JSON object: whether the serial runs were equal, in which
round the unguarded threads gave different audio or failed (null: never), whether all audio of the runner equalled that
of the serial runs, and how many utterances the runner refused as full.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
from pathlib import Path

import numpy as np

from voices.registry import LiveRegistry
from worker.contract import FrameDecoder, FrameKind, Phase, Utterance
from worker.engines import load
from worker.engines.base import Cancellation, Engine, VoiceSource
from worker.options import EngineOptions
from worker.runner import RefusedError, Runner, to_pcm

ROUNDS = 20
"""Rounds with unguarded threads, at most."""


def utterances(names: tuple[str, ...]) -> list[Utterance]:
    """Two utterances for each voice, the same at every call."""
    return [
        Utterance(id=f"{name}-{number}", text=f"Number {number}.", voice=name, seed=number, token_budget=6 + 3 * number)
        for number in range(2)
        for name in names
    ]


def synthesize(engine: Engine, utterance: Utterance, source: VoiceSource) -> bytes:
    return b"".join(to_pcm(chunk) for chunk in engine.synthesize(utterance, source, Cancellation()))


def unguarded(engine: Engine, requests: list[Utterance], sources: dict[str, VoiceSource]) -> dict[str, bytes | None]:
    """PCM by utterance, of two threads that drive the engine at once; None where it failed."""
    audio: dict[str, bytes | None] = {}
    together = threading.Barrier(2)

    def drive(share: list[Utterance]) -> None:
        for utterance in share:
            audio[utterance.id] = None
            together.wait()
            with contextlib.suppress(Exception):  # a failure counts as a difference
                audio[utterance.id] = synthesize(engine, utterance, sources[utterance.voice])

    threads = [threading.Thread(target=drive, args=(requests[half::2],)) for half in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return audio


async def guarded(engine: Engine, voices: LiveRegistry, requests: list[Utterance]) -> tuple[dict[str, bytes], int]:
    """PCM by utterance, of the runner, and the count of refusals; all are submitted at once, and again if refused."""
    runner = Runner(lambda: engine, voices)
    runner.start()
    while runner.phase is not Phase.READY:
        assert runner.phase is not Phase.FAILED, runner.reason
        await asyncio.sleep(0.01)
    refusals = 0

    async def submit(utterance: Utterance) -> bytes:
        nonlocal refusals
        while True:
            try:
                run = runner.submit(utterance)
            except RefusedError as refusal:
                if refusal.error.code != "full":
                    raise
                refusals += 1
                await asyncio.sleep(0.01)
                continue
            decoder = FrameDecoder()
            frames = [frame async for chunk in run.frames() for frame in decoder.feed(chunk)]
            assert frames[-1][0] is FrameKind.END
            return b"".join(payload for _, payload in frames[:-1])

    audio = await asyncio.gather(*map(submit, requests))
    return dict(zip((utterance.id for utterance in requests), audio, strict=True)), refusals


def main(name: str, checkpoint: str, cache: str, folder: str) -> None:
    voices = LiveRegistry(Path(folder))
    engine = load(EngineOptions(name, cache_dir=Path(cache), model_dir=Path(checkpoint)))
    sources = {voice.name: VoiceSource(voice, voices.reference(voice) if voice.reference else None) for voice in voices}
    for source in sources.values():
        engine.prepare(source)
    requests = utterances(voices.names)

    def serially() -> dict[str, bytes]:
        return {utterance.id: synthesize(engine, utterance, sources[utterance.voice]) for utterance in requests}

    serial = serially()
    assert all(np.frombuffer(pcm, "<i2").any() for pcm in serial.values())
    again = serially()
    runner_audio, refusals = asyncio.run(guarded(engine, voices, requests))
    # Last, because two threads may leave the engine in any state.
    different_round = next((number for number in range(ROUNDS) if unguarded(engine, requests, sources) != serial), None)
    report = {
        "serial": again == serial,
        "distinct": len(set(serial.values())) == len(requests),
        "unguarded_differed_in_round": different_round,
        "guarded": runner_audio == serial,
        "refusals": refusals,
    }
    os.write(1, json.dumps(report).encode())
    os._exit(0)  # the runner's thread would keep the process alive


if __name__ == "__main__":
    main(*sys.argv[1:])
