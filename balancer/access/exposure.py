"""Refuses to serve beyond this host without API keys."""

from __future__ import annotations

from balancer.settings.settings import Settings


class ExposureError(RuntimeError):
    """Anyone who can reach the server's address could use it; the message says what to do."""


def check_exposure(settings: Settings) -> None:
    """Raise ExposureError if the server would listen beyond loopback without API keys, unless that is allowed."""
    access = settings.access
    if settings.server.loopback or access.api_keys or access.allow_anonymous or settings.keys_path.exists():
        return
    raise ExposureError(
        f"refusing to listen on {settings.server.host} without API keys: whoever reaches this port could use it.\n"
        "Either make a key:     chorus keys add NAME, or export CHORUS_API_KEYS=$(openssl rand -hex 32)\n"
        "or stay on this host:  --host 127.0.0.1, with a proxy of yours in front\n"
        "or, behind a firewall: --allow-anonymous"
    )
