"""The folder that the program runs from: a checkout, a release on a host, or the image's copy."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
