"""The fingerprint of the weights that the settings choose: part of the audio cache's keys and of calibrations."""

from __future__ import annotations

from balancer.settings.settings import Settings
from worker.checkpoints.fingerprint import fingerprint


def weights_fingerprint(settings: Settings) -> str:
    """Returns the fingerprint of the engine's weights.

    Reads weight files that are new to this host to their end, unless they are in the hub's cache: that takes seconds.
    """
    return fingerprint(
        settings.engine.card,
        flow=settings.engine.flow,
        model_dir=settings.engine.model_dir,
        revision=settings.engine.model_revision,
        notes=settings.storage.cache_dir / "weights.json",
    )
