"""The address of the server, how it starts and stops, and its log."""

from __future__ import annotations

import os
import tempfile
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from balancer.settings.base import AbsolutePath, SettingsGroup


class ServerSettings(SettingsGroup):
    """The address that the server listens on, and how it starts and stops."""

    title = "Server"

    host: str = Field(
        "127.0.0.1", min_length=1, description="Address to listen on; any other than loopback requires API keys."
    )
    port: int = Field(5000, ge=1, le=65535, description="Port to listen on.")
    agent_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="Port that answers HAProxy's agent check with this host's weight by its work, or `drain`; "
        "unset: none.",
    )
    public_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s?#]+$",
        description="Address at which clients reach this server, used for the URLs in its answers; unset: taken from "
        "each request.",
    )
    trusted_proxies: str | None = Field(
        None,
        description="Addresses or networks of proxies, separated by commas, whose `X-Forwarded-For` header is "
        "believed; unset: none.",
    )
    run_dir: AbsolutePath | None = Field(
        None,
        description="Directory of the Unix sockets, mode 0700; unset: `chorus-<user id>-<port>` in the temporary "
        "directory.",
    )
    stop_seconds: int = Field(
        30,
        ge=1,
        description="Grace period in seconds for requests in flight when the server is stopped, or the balancer "
        "replaced; connections that do not end within it are cut.",
    )
    stop_delay_seconds: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="Seconds for which the server, once it is told to stop, still serves everything while `/ready` "
        "says 503, so that a proxy finds out before the port is closed.",
    )
    balancer_watchdog_seconds: float = Field(
        15.0,
        ge=0,
        description="Seconds without progress of its event loop after which the balancer's process is killed and "
        "replaced, counted in steps of 5; 0: never.",
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, proxies: str | None) -> str | None:
        for part in (proxies or "").split(","):
            if part.strip():
                ip_network(part.strip(), strict=False)
        return proxies

    @property
    def socket_dir(self) -> Path:
        """The directory of the sockets: `run_dir`, or the default for this user and port."""
        return self.run_dir or Path(tempfile.gettempdir()) / f"chorus-{os.getuid()}-{self.port}"

    @property
    def control_socket(self) -> Path:
        """The socket on which the balancer takes the operator's commands."""
        return self.socket_dir / "control.sock"

    @property
    def loopback(self) -> bool:
        """Whether `host` can be reached from this host only."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


class LoggingSettings(SettingsGroup):
    """What is logged, and in which form."""

    title = "Logging"

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged.")
    log_format: Literal["text", "json"] = Field(
        "text", description="`text`: lines for people; `json`: one JSON object per line."
    )
    log_text: bool = Field(False, description="Whether the texts of requests appear in the log.")
