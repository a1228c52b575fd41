"""What Chorus is measured against: one model of the Chatterbox family behind one lock, as people serve it today.

One process, loaded as upstream loads it, torch's threads as torch sets them. For a fair comparison it caps an
utterance's tokens as Chorus does, seeds it, keeps its logs quiet, and has spoken once before it listens; it also runs
in inference mode throughout, which few do. Started by bench_workers.py and bench_engine.py.
"""

from __future__ import annotations

import argparse
import io
import logging
import threading
import wave
from pathlib import Path
from typing import Any

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from worker.cards import CARDS
from worker.contract import SAMPLE_BYTES
from worker.engines.base import Cancellation
from worker.engines.chatterbox.token_budget import token_budget
from worker.engines.chatterbox.upstream import loading, patches
from worker.runner import WARM_UP_TEXT, WARM_UP_TOKENS, to_pcm
from worker.stage_timer import StageTimer

LOADERS = ("upstream", "ours")


class LockedModel:
    """One model that one request at a time may use; the others wait for the lock in threads of their own."""

    def __init__(self, model: Any, arguments: dict[str, str]) -> None:
        self._model = model
        self._arguments = arguments
        self._lock = threading.Lock()
        self._stages = StageTimer()
        patches.time_stages(model, self._stages)

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Seconds spent so far, by stage of the work; a copy."""
        return dict(self._stages.seconds)

    def speak(self, text: str, seed: int, budget: int) -> bytes:
        """The text as a WAV file, of at most `budget` speech tokens."""
        limit = patches.DecodeLimit(Cancellation(), budget)
        with self._lock, torch.inference_mode(), patches.muted(), patches.limited_decoding(limit):
            torch.manual_seed(seed)
            samples = self._model.generate(text, **self._arguments).numpy()[0]
        return wav(to_pcm(samples), self._model.sr)


def wav(pcm: bytes, rate: int) -> bytes:
    """A WAV file of 16-bit mono samples."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(SAMPLE_BYTES)
        writer.setframerate(rate)
        writer.writeframes(pcm)
    return file.getvalue()


def private(engine: str, folder: Path) -> Any:
    """The model from our loader, its weights copied into memory of its own, as upstream's loaders leave them.

    For what upstream cannot load: Nano, and sizes that it has not written down.
    """
    mapped = loading._read_tensors

    def copied(file: Path) -> loading.StateDict:
        return {name: tensor.clone() for name, tensor in mapped(file).items()}

    loading._read_tensors = copied
    return loading.load(engine, folder)


def create_app(model: LockedModel) -> Starlette:
    """The whole server: `POST /tts` with a text and a seed answers a WAV file."""

    async def tts(request: Request) -> Response:
        body = await request.json()
        text = body["text"]
        audio = await run_in_threadpool(model.speak, text, body["seed"], token_budget(text))
        return Response(audio, media_type="audio/wav")

    async def health(_: Request) -> Response:
        return JSONResponse({"threads": torch.get_num_threads(), "stage_seconds": model.stage_seconds})

    return Starlette(routes=[Route("/tts", tts, methods=["POST"]), Route("/health", health)])


def main() -> None:
    """Load, speak once, then serve until SIGTERM."""
    parser = argparse.ArgumentParser(description="One model, one lock.")
    parser.add_argument("--engine", choices=sorted(loading.VARIANTS), required=True)
    parser.add_argument("--model-dir", type=Path, required=True, help="folder of the checkpoint, with a conds.pt")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--loader", choices=LOADERS, default="upstream")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(levelname)s %(message)s")
    patches.install()
    with patches.muted():
        if arguments.loader == "upstream":
            model = loading.VARIANTS[arguments.engine].upstream.from_local(arguments.model_dir, "cpu")
        else:
            model = private(arguments.engine, arguments.model_dir)
    locked = LockedModel(model, {"language_id": "en"} if CARDS[arguments.engine].parameter("language") else {})
    locked.speak(WARM_UP_TEXT, 0, WARM_UP_TOKENS)
    uvicorn.run(create_app(locked), port=arguments.port, log_level="error", access_log=False)


if __name__ == "__main__":
    main()
