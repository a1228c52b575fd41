"""Calibrations for tests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from balancer.host.calibration import Calibration, CalibrationConditions, Measurement

CONDITIONS = CalibrationConditions.model_validate(
    {
        "engine": "turbo, batched, int8",
        "weights": "a digest",
        "processor": "Xeon",
        "cores": 8,
        "quota": None,
    }
)


def measurement(threads: int = 1, slots: int = 1, audio: float = 100.0, **others: Any) -> Measurement:
    """A measurement of 8 workers over 100 s that made `audio` seconds of audio."""
    values = {"workers": 8, "utterances": 16, "seconds": 100.0, "answer_seconds": 5.0, "worker_bytes": 10**9}
    return Measurement.model_validate(values | {"threads": threads, "slots": slots, "audio_seconds": audio} | others)


def calibration(*measurements: Measurement) -> Calibration:
    """A calibration under `CONDITIONS`, made now."""
    return Calibration(conditions=CONDITIONS, measured_at=datetime.now(UTC), measurements=measurements)
