"""Compiled kernels that programs of this package share. To compile those of one precision takes a minute."""

from __future__ import annotations

import os
from pathlib import Path

from balancer.settings.settings import variable


def cache_folder(folder: Path) -> Path:
    """The cache folder in `folder`; its compiled kernels are those of CHORUS_CACHE_DIR if that is set."""
    shared = os.environ.get(variable("cache_dir"))
    return (folder / "cache") if shared is None else with_kernels(folder / "cache", Path(shared))


def with_kernels(cache: Path, shared: Path) -> Path:
    """Have engines whose cache folder is `cache` find and keep compiled kernels in `shared`; returns `cache`."""
    kernels, link = shared / "kernels", cache / "kernels"
    kernels.mkdir(parents=True, exist_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(kernels.absolute())
    return cache
