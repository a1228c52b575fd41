"""What a client may send and hold of connections, and how long it may take."""

from __future__ import annotations

from pydantic import Field

from balancer.settings.base import SettingsGroup


class HttpSettings(SettingsGroup):
    """What a client may send and hold of connections, and how long it may take."""

    title = "HTTP connections"

    max_connections: int | None = Field(
        None,
        ge=1,
        description="Maximum number of open connections; unset: half of the file descriptors that are left for them, "
        "at most 8192. Above it the one that has waited longest for a request is closed; if all are busy a new one "
        "gets 503.",
    )
    max_connections_per_address: int | None = Field(
        None,
        ge=1,
        description="Maximum number of open connections of one client address, trusted proxies excepted; unset: half "
        "of the maximum of all.",
    )
    max_head_bytes: int = Field(
        65_536, ge=1024, description="Maximum size of a request's line and headers in bytes; above it 431."
    )
    max_header_bytes: int = Field(
        16_384, ge=256, description="Maximum size of one header, or of the request line, in bytes; above it 431 or 414."
    )
    max_headers: int = Field(100, ge=1, description="Maximum number of headers of a request; above it 431.")
    head_seconds: float = Field(
        10.0,
        gt=0,
        description="Seconds within which the headers of a request must arrive, counted from a new connection or "
        "from the first byte of a further request; after that 408.",
    )
    body_seconds: float = Field(
        20.0, gt=0, description="Seconds for which a client may send nothing of a request's body; after that 408."
    )
    write_seconds: float = Field(
        60.0,
        gt=0,
        description="Seconds for which a client may read nothing of its response; after that the connection is cut.",
    )
    min_bytes_per_second: float = Field(
        500.0,
        gt=0,
        description="Minimum average rate at which a client sends a body and reads a response, beyond the seconds "
        "above.",
    )
    keep_alive_seconds: float = Field(
        75.0, gt=0, description="Seconds for which a connection without a request stays open after a response."
    )
