"""`python -m balancer`: the balancer process, started by supervisord, or by itself when it restarts."""

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

CLOSING_SECONDS = 2.0
"""Time before a restart in which every response closes its connection, so that busy clients reconnect by themselves."""


class Process:
    """The server. It restarts by executing the program again in the same process, on the same sockets."""

    def __init__(self, settings: Settings, listeners: list[socket.socket]) -> None:
        self._settings = settings
        self._listeners = listeners
        self._connection_close = ConnectionCloseMiddleware(create_app(settings, self._replace))
        self._restart = False
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._connection_close,
                loop="uvloop",
                http="httptools",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=75,
                # uvicorn trusts every client on this host by default.
                proxy_headers=settings.server.trusted_proxies is not None,
                forwarded_allow_ips=settings.server.trusted_proxies,
                timeout_graceful_shutdown=settings.server.stop_seconds,
            )
        )

    def run(self) -> None:
        """Serves until SIGTERM, then finishes requests in flight within the grace period."""
        # uvicorn closes the sockets that it is given; the originals stay open for the next program.
        self._server.run(sockets=[listener.dup() for listener in self._listeners])
        if self._restart:
            pass_on(self._listeners, os.environ)
            os.execv(sys.executable, [sys.executable, "-m", "balancer"])

    def _replace(self) -> None:
        self._connection_close.closing = True
        asyncio.get_running_loop().call_later(CLOSING_SECONDS, self._stop_for_restart)

    def _stop_for_restart(self) -> None:
        self._restart = True
        # There is no hurry: new connections wait in the kernel, and every request has a time limit.
        self._server.config.timeout_graceful_shutdown = ceil(self._settings.limits.request_timeout)
        self._server.should_exit = True


def main() -> None:
    """Reads the settings and serves."""
    try:
        settings = Settings.load()
        check_exposure(settings)  # once more: it may have been started without `chorus serve`
        configure("balancer", level=settings.logging.log_level, log_format=settings.logging.log_format)
        process = Process(settings, take_over(os.environ) or _listen(settings.server))
    except (SettingsError, ExposureError, VoiceError, KeysFileError) as error:
        sys.exit(str(error))
    for name in ("httpx", "httpcore", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # uvicorn raises SIGTERM again after the requests in flight have finished: the exit code is to be 0 then.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    process.run()


def _listen(server: ServerSettings) -> list[socket.socket]:
    try:
        return listen(server.host, server.port)
    except OSError as error:
        sys.exit(f"cannot listen on {server.host}:{server.port}: {error.strerror}")


if __name__ == "__main__":
    main()
