"""`python -m balancer`: the balancer process, as supervisord starts it."""

from __future__ import annotations

import logging
import signal
import sys

import uvicorn

from balancer.app import create_app
from balancer.launch import LaunchError, check_reach
from balancer.settings import Settings, SettingsError
from voices.registry import VoiceError


def main() -> None:
    """Serve until SIGTERM; what is in flight is finished first, within the grace period."""
    try:
        settings = Settings.load()
        check_reach(settings)  # once more: it may have been started without `chorus serve`
        logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s balancer %(levelname)s %(message)s")
        app = create_app(settings)
    except (SettingsError, LaunchError, VoiceError) as error:
        sys.exit(str(error))
    for chatty in ("httpx", "httpcore", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # uvicorn raises the signal again once it has finished what was in flight: that is a clean end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=settings.stop_seconds,
    )


if __name__ == "__main__":
    main()
