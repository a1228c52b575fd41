"""Tells the terminal when the server can speak, and how to speak to it."""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path

from balancer.dispatch.dispatcher import Dispatcher
from balancer.fleet.fleet import WorkerPhase
from balancer.settings import Settings

PATIENCE_SECONDS = 10.0
"""How long the announcement waits for the other workers once one is ready."""

LOOK_SECONDS = 0.1


async def announce(settings: Settings, dispatcher: Dispatcher) -> None:
    """Wait until the workers are ready, then say so on standard output, once."""
    while dispatcher.why_not_serving() is not None:
        await asyncio.sleep(LOOK_SECONDS)
    waited = 0.0
    while _ready(dispatcher) < (settings.layout.workers or 1) and waited < PATIENCE_SECONDS:
        await asyncio.sleep(LOOK_SECONDS)
        waited += LOOK_SECONDS
    sys.stdout.write(_message(settings, _ready(dispatcher)))
    sys.stdout.flush()


def _ready(dispatcher: Dispatcher) -> int:
    return sum(view.phase in (WorkerPhase.READY, WorkerPhase.BUSY) for view in dispatcher.workers())


def _message(settings: Settings, ready: int) -> str:
    server = settings.server
    host = "127.0.0.1" if server.host in ("0.0.0.0", "::") else server.host  # noqa: S104 - an address to connect to
    url = f"http://{f'[{host}]' if ':' in host else host}:{server.port}"
    chorus = shlex.quote(str(Path(sys.executable).with_name("chorus")))
    keyed = settings.access.api_keys or settings.keys_path.exists()
    key = " \\\n       -H 'Authorization: Bearer <your key>'" if keyed else ""
    return f"""
Chorus is ready: {ready} of {settings.layout.workers or ready} workers, engine {settings.engine.engine}, at {url}

  curl {url}/tts -H 'Content-Type: application/json'{key} \\
       -d '{{"text": "Hello from Chorus.", "character": "default"}}' -o hello.wav

  {chorus} say "Hello from Chorus." --url {url} -o hello.wav
  {url}/docs describes the rest; Ctrl-C stops it.

"""
