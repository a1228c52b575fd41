"""A server with one Chatterbox model behind one lock, the usual way to serve such a model.

`bench_workers` and `bench_engine` compare Chorus with it. It is one process that loads the model as upstream does and
leaves PyTorch's number of threads as it is. For a fair comparison it has Chorus's token budgets, seeds every utterance,
logs only errors, listens after a warm-up, and runs in inference mode, which few such servers do.
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
from worker.engines.chatterbox.upstream.lean_imports import lean_imports
from worker.runner import WARM_UP_TEXT, WARM_UP_TOKENS, to_pcm
from worker.stage_timer import StageTimer

with lean_imports():  # as workers do; it changes nothing but the time of a start
    from worker.engines.chatterbox.upstream import loading, patches

LOADERS = ("upstream", "ours")


class LockedModel:
    """A model that serves one request at a time; the others wait for the lock, each in a thread."""

    def __init__(self, model: Any, arguments: dict[str, str]) -> None:
        self._model = model
        self._arguments = arguments
        self._lock = threading.Lock()
        self._stages = StageTimer()
        patches.time_stages(model, self._stages)

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Seconds spent so far by stage; a copy."""
        return dict(self._stages.seconds)

    def synthesize(self, text: str, seed: int, budget: int) -> bytes:
        """The audio of a text as a WAV file, of at most `budget` speech tokens."""
        limit = patches.DecodeLimit(Cancellation(), budget)
        with self._lock, torch.inference_mode(), patches.muted(), patches.limited_decoding(limit):
            torch.manual_seed(seed)
            samples = self._model.generate(text, **self._arguments).numpy()[0]
        return wav_file(to_pcm(samples), self._model.sr)


def wav_file(pcm: bytes, rate: int) -> bytes:
    """A WAV file of 16-bit mono samples."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(SAMPLE_BYTES)
        writer.setframerate(rate)
        writer.writeframes(pcm)
    return file.getvalue()


def load_private_copy(engine: str, folder: Path) -> Any:
    """The model as Chorus loads it, with its weights copied into private memory, where upstream's loaders put them.

    For models that upstream cannot load: Nano, and sizes other than the full one.
    """
    mapped = loading._read_tensors

    def copied(file: Path) -> loading.StateDict:
        return {name: tensor.clone() for name, tensor in mapped(file).items()}

    loading._read_tensors = copied
    return loading.load(engine, folder)


def create_app(model: LockedModel) -> Starlette:
    """The server: `POST /tts` with a text and a seed answers a WAV file."""

    async def tts(request: Request) -> Response:
        body = await request.json()
        text = body["text"]
        audio = await run_in_threadpool(model.synthesize, text, body["seed"], token_budget(text))
        return Response(audio, media_type="audio/wav")

    async def health(_: Request) -> Response:
        return JSONResponse({"threads": torch.get_num_threads(), "stage_seconds": model.stage_seconds})

    return Starlette(routes=[Route("/tts", tts, methods=["POST"]), Route("/health", health)])


def main() -> None:
    """Load the model, warm it up, then serve until SIGTERM."""
    parser = argparse.ArgumentParser(description="One model behind one lock.")
    parser.add_argument("--engine", choices=sorted(loading.VARIANTS), required=True)
    parser.add_argument("--model-dir", type=Path, required=True, help="folder of a checkpoint with a conds.pt")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--loader", choices=LOADERS, default="upstream")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(levelname)s %(message)s")
    patches.install()
    with patches.muted():
        if arguments.loader == "upstream":
            model = loading.VARIANTS[arguments.engine].upstream.from_local(arguments.model_dir, "cpu")
        else:
            model = load_private_copy(arguments.engine, arguments.model_dir)
    locked = LockedModel(model, {"language_id": "en"} if CARDS[arguments.engine].parameter("language") else {})
    locked.synthesize(WARM_UP_TEXT, 0, WARM_UP_TOKENS)
    uvicorn.run(create_app(locked), port=arguments.port, log_level="error", access_log=False)


if __name__ == "__main__":
    main()
