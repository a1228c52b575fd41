"""The balancer process: settings, listening sockets, the server, and how it ends."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import time
from functools import partial
from typing import cast

import uvicorn

from balancer.access.exposure import ExposureError, check_exposure
from balancer.access.trusted_proxies import TrustedProxies
from balancer.app.app import create_app
from balancer.http.connections import Connections
from balancer.http.protocol import HttpProtocol
from balancer.http.server import Server
from balancer.listening_sockets import listen, take_over
from balancer.metrics import Metrics
from balancer.runtime.background import end_process
from balancer.runtime.descriptor_limit import raise_descriptor_limit
from balancer.runtime.lifecycle import Lifecycle
from balancer.settings.server import ServerSettings
from balancer.settings.settings import Settings, SettingsError
from voices.registry import VoiceError
from worker.logs import configure

log = logging.getLogger(__name__)

START_SECONDS = 1.0
"""`startsecs` of the balancer in supervisord.conf."""


def create_server(settings: Settings, listeners: list[socket.socket]) -> Server:
    """Returns the server of a balancer with these settings on these sockets."""
    lifecycle = Lifecycle()
    metrics = Metrics(settings.engine.card.name)
    proxies = TrustedProxies(settings.server.trusted_proxies)
    connections = Connections(settings.http, metrics, proxies, workers=settings.layout.workers)
    config = uvicorn.Config(
        create_app(settings, metrics, lifecycle),
        loop="uvloop",
        http=cast("type[HttpProtocol]", partial(HttpProtocol, connections)),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # ForwardedMiddleware reads them
        timeout_graceful_shutdown=settings.server.stop_seconds,
    )
    return Server(config, listeners, lifecycle, connections, stop_delay=settings.server.stop_delay_seconds)


def serve() -> None:
    """Reads the settings and serves."""
    # First of all: no other program of this process is to inherit the sockets.
    listeners = take_over(os.environ)
    raise_descriptor_limit()
    # Until the settings are known; a faulty one is a line of the log, too.
    configure("balancer", level="info", log_format=os.environ.get("CHORUS_LOG_FORMAT", "text"))
    try:
        settings = Settings.load()
        check_exposure(settings)  # once more: it may have been started without `chorus serve`
        configure("balancer", level=settings.logging.log_level, log_format=settings.logging.log_format)
        server = create_server(settings, listeners or _listen(settings.server))
    except (SettingsError, ExposureError, VoiceError) as error:
        for line in str(error).splitlines():
            log.error("%s", line)
        # supervisord.conf says not to start it again, which supervisord heeds only once it has run for `startsecs`.
        time.sleep(START_SECONDS)
        sys.exit(os.EX_CONFIG)
    for name in ("httpx", "httpcore", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # uvicorn raises SIGTERM again after its last steps: the exit code is to be 0 then, and no thread is waited for.
    signal.signal(signal.SIGTERM, lambda *_: end_process(0))
    # Modules and settings stay: no later collection is to look at them, while all requests wait.
    gc.freeze()
    gc.enable()
    server.serve_until_stopped()


def _listen(server: ServerSettings) -> list[socket.socket]:
    try:
        return listen(server.host, server.port)
    except OSError as error:
        log.error("cannot listen on %s:%d: %s", server.host, server.port, error.strerror)
        sys.exit(1)
