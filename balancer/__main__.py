"""`python -m balancer`: the balancer process, as supervisord starts it and as it starts itself afresh."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from math import ceil

import uvicorn

from balancer.access.api_keys import KeysFileError
from balancer.access.exposure import ExposureError, check_exposure
from balancer.api.middleware.connection_close import ConnectionCloseMiddleware
from balancer.app import create_app
from balancer.listening_sockets import listen, pass_on, take_over
from balancer.settings import Settings, SettingsError
from balancer.settings_groups import ServerSettings
from voices.registry import VoiceError
from worker.logs import configure

LEAVING_SECONDS = 2.0
"""How long answers close their connections before those left over are closed: clients that send often have moved."""


class Process:
    """The server, and how it starts afresh: the same process runs a new program on the same sockets."""

    def __init__(self, settings: Settings, listeners: list[socket.socket]) -> None:
        self._settings = settings
        self._listeners = listeners
        self._connection_close = ConnectionCloseMiddleware(create_app(settings, self._replace))
        self._again = False
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._connection_close,
                loop="uvloop",
                http="httptools",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=75,
                # Its own default would believe anybody on this host.
                proxy_headers=settings.server.trusted_proxies is not None,
                forwarded_allow_ips=settings.server.trusted_proxies,
                timeout_graceful_shutdown=settings.server.stop_seconds,
            )
        )

    def run(self) -> None:
        """Serve until SIGTERM; what is in flight is finished first, within the grace period."""
        # The server closes what it is given; these stay open for the next program.
        self._server.run(sockets=[listener.dup() for listener in self._listeners])
        if self._again:
            pass_on(self._listeners, os.environ)
            os.execv(sys.executable, [sys.executable, "-m", "balancer"])

    def _replace(self) -> None:
        self._connection_close.closing = True
        asyncio.get_running_loop().call_later(LEAVING_SECONDS, self._leave)

    def _leave(self) -> None:
        self._again = True
        # Nothing hurries: connections wait in the kernel, and every request has its own limit.
        self._server.config.timeout_graceful_shutdown = ceil(self._settings.limits.request_timeout)
        self._server.should_exit = True


def main() -> None:
    """Read the settings and serve."""
    try:
        settings = Settings.load()
        check_exposure(settings)  # once more: it may have been started without `chorus serve`
        configure("balancer", level=settings.logging.log_level, log_format=settings.logging.log_format)
        process = Process(settings, take_over(os.environ) or _listen(settings.server))
    except (SettingsError, ExposureError, VoiceError, KeysFileError) as error:
        sys.exit(str(error))
    for chatty in ("httpx", "httpcore", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # uvicorn raises the signal again once it has finished what was in flight: that is a clean end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    process.run()


def _listen(server: ServerSettings) -> list[socket.socket]:
    try:
        return listen(server.host, server.port)
    except OSError as error:
        sys.exit(f"cannot listen on {server.host}:{server.port}: {error.strerror}")


if __name__ == "__main__":
    main()
