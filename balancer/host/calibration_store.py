"""Stores calibrations: one file each in the cache folder, found again while the conditions are the same."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from balancer.host.calibration import Calibration, CalibrationConditions

log = logging.getLogger(__name__)

UNKNOWN_WEIGHTS = ""
"""Stands for the fingerprint of weights that have not been read yet."""


def calibrations_folder(cache_dir: Path) -> Path:
    """The folder of all calibrations."""
    return cache_dir / "calibrations"


def save(calibration: Calibration, cache_dir: Path) -> Path:
    """Write a calibration atomically, in place of an earlier one under the same conditions. Raises OSError."""
    file = calibrations_folder(cache_dir) / f"{calibration.conditions.file_stem}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        temporary.write_text(calibration.model_dump_json(indent=2) + "\n", encoding="utf-8")
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    return file


def find_calibration(
    conditions: CalibrationConditions, cache_dir: Path, fingerprint: Callable[[], str]
) -> tuple[Calibration | None, str | None]:
    """Returns the calibration under these conditions, or else None and a sentence on how the existing ones differ.

    `conditions` leave out the weights. `fingerprint` identifies them; it may read gigabytes and is only called if
    everything else agrees.
    """
    differences: set[str] = set()
    candidates = []
    for file in sorted(calibrations_folder(cache_dir).glob(f"{conditions.file_prefix}*.json")):
        try:
            calibration = Calibration.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            log.warning("ignoring the calibration in %s, which cannot be read: %s", file, error)
            continue
        different = set(calibration.conditions.differences(conditions)) - {"weights"}
        if different:
            differences |= different
        else:
            candidates.append(calibration)
    if candidates:
        weights = fingerprint()
        for calibration in candidates:
            if calibration.conditions.weights == weights:
                return calibration, None
        differences.add("weights")
    if not differences:
        return None, None
    names = ", ".join(sorted(differences))
    return None, f"No calibration matches this host, which differs in {names}; run `chorus calibrate`."
