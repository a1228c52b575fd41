"""Runs a worker's app on its Unix socket until SIGTERM, or until its model turns out not to load."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import NoReturn

import uvicorn

from voices.registry import LiveRegistry, VoiceError
from worker.app import create_app
from worker.engines import load
from worker.runner import Runner

log = logging.getLogger(__name__)

FAILED_SECONDS = 30.0
"""How long a worker whose model cannot load stays up to say why, before it ends to be started afresh."""

KEEP_ALIVE_SECONDS = 3600
"""Longer than the balancer keeps an idle connection: it must never pick one that is just being closed here."""


def serve(
    *,
    index: int,
    engine: str,
    threads: int,
    path: Path,
    voices: Path,
    model_dir: Path | None,
    cache: Path,
    failed_seconds: float = FAILED_SECONDS,
) -> NoReturn:
    """Serve one worker on the socket at `path`. Ends the process: 0 on SIGTERM, 1 if the model cannot load."""
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    # uvicorn raises the signal again once it has finished what was in flight: that is a clean end.
    signal.signal(signal.SIGTERM, lambda *_: _end(0))
    try:
        registry = LiveRegistry(voices)
    except VoiceError as error:
        sys.exit(f"worker {index}: {error}")
    runner = Runner(partial(load, engine, threads=threads, model_dir=model_dir, cache=cache), registry)
    app = create_app(runner, index=index, engine=engine, threads=threads)
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, timeout_keep_alive=KEEP_ALIVE_SECONDS)
    )
    asyncio.run(_serve(server, runner, path, failed_seconds))
    _end(1 if runner.reason is not None else 0)


def _end(code: int) -> NoReturn:
    """End without the interpreter's own way out, which aborts where the model's thread is inside native code."""
    os._exit(code)


async def _serve(server: uvicorn.Server, runner: Runner, path: Path, failed_seconds: float) -> None:
    give_up = asyncio.create_task(_give_up(server, runner, failed_seconds))
    try:
        await server.serve(sockets=[listen(path)])
    finally:
        give_up.cancel()


async def _give_up(server: uvicorn.Server, runner: Runner, failed_seconds: float) -> None:
    await runner.failed()
    await asyncio.sleep(failed_seconds)
    log.error("ending, to be started afresh: %s", runner.reason)
    server.should_exit = True


def listen(path: Path) -> socket.socket:
    """A Unix socket listening at `path` that only this user may open.

    It takes the place of what a dead worker left there in one step: no client ever finds the path missing.
    """
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)  # an earlier process of the same number may have died in the middle of this
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(fresh))
    fresh.chmod(0o600)
    listener.listen(128)
    fresh.replace(path)
    return listener
