"""The socket at which a worker listens. Imports no library, so that a stub worker starts at once."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def listen(path: Path) -> socket.socket:
    """A Unix socket listening at `path` that only this user may open.

    It takes the place of what a dead worker left there in one step: no client ever finds the path missing.
    """
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    for left in path.parent.glob(f"{path.name}.*"):
        left.unlink(missing_ok=True)  # an earlier process may have died in the middle of this
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(fresh))
    fresh.chmod(0o600)
    listener.listen(128)
    fresh.replace(path)
    return listener
