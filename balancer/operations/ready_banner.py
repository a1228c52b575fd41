"""Prints on the terminal that the server is ready, with commands to try."""

from __future__ import annotations

import asyncio
import logging
import shlex
import sys
from pathlib import Path

from balancer.dispatch.host_state import HostState
from balancer.fleet.fleet import WorkerPhase
from balancer.settings.settings import Settings

log = logging.getLogger(__name__)

MAX_WAIT_SECONDS = 10.0
"""Time that the banner waits for the other workers once one is ready."""

POLL_INTERVAL_SECONDS = 0.1


async def print_ready_banner(settings: Settings, host_state: HostState) -> None:
    """Waits until the workers are ready, then prints the banner on standard output, once."""
    while host_state.why_not_serving() is not None:
        await asyncio.sleep(POLL_INTERVAL_SECONDS)
    waited = 0.0
    while _ready_workers(host_state) < (settings.layout.workers or 1) and waited < MAX_WAIT_SECONDS:
        await asyncio.sleep(POLL_INTERVAL_SECONDS)
        waited += POLL_INTERVAL_SECONDS
    ready = _ready_workers(host_state)
    if settings.logging.log_format == "json":
        fields = {"workers": ready, "engine": settings.engine.engine, "url": _url(settings)}
        log.info("Chorus is ready", extra={"fields": fields})
        return
    sys.stdout.write(_banner(settings, ready))
    sys.stdout.flush()


def _ready_workers(host_state: HostState) -> int:
    return sum(view.phase in (WorkerPhase.READY, WorkerPhase.BUSY) for view in host_state.workers())


def _url(settings: Settings) -> str:
    """An address of this host at which the server answers."""
    server = settings.server
    host = "127.0.0.1" if server.host in ("0.0.0.0", "::") else server.host  # noqa: S104 - an address to connect to
    return f"http://{f'[{host}]' if ':' in host else host}:{server.port}"


def _banner(settings: Settings, ready: int) -> str:
    url = _url(settings)
    chorus = shlex.quote(str(Path(sys.executable).with_name("chorus")))
    needs_key = settings.access.api_keys or settings.keys_path.exists()
    key = " \\\n       -H 'Authorization: Bearer <your key>'" if needs_key else ""
    page = f"  {url}/ speaks, adds voices and shows what the host does, in a browser\n" if settings.access.page else ""
    return f"""
Chorus is ready: {ready} of {settings.layout.workers or ready} workers, engine {settings.engine.engine}, at {url}

  curl {url}/tts -H 'Content-Type: application/json'{key} \\
       -d '{{"text": "Hello from Chorus.", "character": "default"}}' -o hello.wav

  {chorus} say "Hello from Chorus." --url {url} -o hello.wav
{page}  {url}/docs describes the whole API; Ctrl-C stops the server.

"""
