"""The limit of open files: every connection of a client takes one, and systemd's default is 1024 of them."""

from __future__ import annotations

import resource
from contextlib import suppress

MAX_DESCRIPTORS = 65_536
"""More would only let more memory be taken: a connection costs tens of kilobytes."""


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one, or to MAX_DESCRIPTORS; returns the soft limit.

    Programs that are started later inherit it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # a sandbox may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
