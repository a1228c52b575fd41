"""HTTP over the Unix sockets of this host's processes."""

from __future__ import annotations

from pathlib import Path

import httpx


def unix_transport(path: Path) -> httpx.HTTPTransport:
    """The transport of a client of the process that listens on that socket."""
    # Nothing is encrypted there: without `verify`, httpx does not read the certificates of all authorities, which takes
    # 30 ms of CPU time.
    return httpx.HTTPTransport(uds=str(path), verify=False)
