"""The options of the workers of a layout: what `chorus serve` and `chorus calibrate` start them with."""

from __future__ import annotations

from balancer.host.layout import Layout
from balancer.settings.settings import Settings
from worker.options import WorkerOptions


def worker_options(settings: Settings, layout: Layout, *, index: int = 0) -> WorkerOptions:
    """Returns the options of worker `index` of a layout, as the settings have them."""
    return WorkerOptions(
        settings.engine_options(slots=layout.slots, threads=layout.threads),
        layout=layout.workers,
        run_dir=settings.server.socket_dir,
        voices_dir=settings.storage.voices_dir,
        index=index,
        watchdog_seconds=settings.probes.watchdog_seconds,
        log_level=settings.logging.log_level,
        log_format=settings.logging.log_format,
        log_text=settings.logging.log_text,
    )
