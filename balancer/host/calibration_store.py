"""Where calibrations are kept: a file each in the cache folder, found again where the conditions are the same."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from balancer.host.calibration import Calibration, Conditions

log = logging.getLogger(__name__)

UNKNOWN_WEIGHTS = ""
"""Fingerprint of weights that were not read yet."""


def calibrations_folder(cache: Path) -> Path:
    """The folder of all calibrations."""
    return cache / "calibrations"


def save(calibration: Calibration, cache: Path) -> Path:
    """Write a calibration, in one step, in the place of an earlier one of the same conditions. Raises OSError."""
    place = calibrations_folder(cache) / f"{calibration.conditions.name}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    aside = place.with_name(f"{place.name}.{os.getpid()}")
    try:
        aside.write_text(calibration.model_dump_json(indent=2) + "\n", encoding="utf-8")
        aside.replace(place)
    finally:
        aside.unlink(missing_ok=True)
    return place


def find_calibration(
    conditions: Conditions, cache: Path, fingerprint: Callable[[], str]
) -> tuple[Calibration | None, str | None]:
    """The calibration of these conditions, else None and what differs in those there are, in a sentence.

    `fingerprint` tells the weights, which `conditions` leave out: it may read gigabytes, and is asked only where all
    else agrees.
    """
    others: set[str] = set()
    candidates = []
    for file in sorted(calibrations_folder(cache).glob(f"{conditions.prefix}*.json")):
        try:
            kept = Calibration.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            log.warning("the calibration in %s cannot be read, and counts for nothing: %s", file, error)
            continue
        differences = set(kept.conditions.differences(conditions)) - {"weights"}
        if differences:
            others |= differences
        else:
            candidates.append(kept)
    if candidates:
        weights = fingerprint()
        for kept in candidates:
            if kept.conditions.weights == weights:
                return kept, None
        others.add("weights")
    if not others:
        return None, None
    return None, f"No calibration is for this host as it is: other {', '.join(sorted(others))}; run `chorus calibrate`."
