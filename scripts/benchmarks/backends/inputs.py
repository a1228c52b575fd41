"""The numbers that go into the steps, drawn once and the same for every runtime."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scripts.benchmarks.backends import backend

Arrays = dict[str, NDArray[np.float32]]
"""Inputs by name, in the order of the step's arguments."""

SHARED_POSITIONS = 376
"""What precedes every text of a voice in Turbo and Nano: speaker and 375 tokens of its clip, the same in every row."""

BANDS = 80
TIME, UNTIL = 0.0, 0.5
"""The first of mean flow's two steps."""


class Work(StrEnum):
    """Which step."""

    DECODE = backend.DECODE
    ESTIMATOR = backend.ESTIMATOR

    @property
    def result(self) -> str:
        """What its first output is called."""
        return "logits" if self is Work.DECODE else "direction"


@dataclass(frozen=True)
class Shape:
    """How large the cache of keys and values of a decode step is."""

    layers: int
    rows: int
    heads: int
    positions: int
    """That are known before the new one."""
    width: int
    """Of a head."""

    @property
    def names(self) -> list[str]:
        """Of what a step takes beside its states, in order."""
        return [f"{kind}_{layer}" for layer in range(self.layers) for kind in ("keys", "values")]


def write_decode(folder: Path, shape: Shape) -> None:
    """Draw what a decode step takes, and keep it in files that all runtimes map."""
    draw = np.random.default_rng(0)
    numbers = draw.standard_normal((shape.rows, shape.heads, shape.positions, shape.width), np.float32)
    numbers[1:, :, :SHARED_POSITIONS] = numbers[0, :, :SHARED_POSITIONS]
    with (folder / "past").open("wb") as past:
        for _ in shape.names:
            numbers.tofile(past)
    np.save(folder / "states.npy", draw.standard_normal((shape.rows, shape.heads * shape.width), np.float32))
    (folder / "shape.json").write_text(json.dumps(asdict(shape)), encoding="utf-8")


def shape_of(folder: Path) -> Shape:
    """The shape of what was written."""
    return Shape(**json.loads((folder / "shape.json").read_text(encoding="utf-8")))


def decode(folder: Path, rows: int) -> Arrays:
    """What was written, for so many rows: nothing is copied but the states."""
    shape = shape_of(folder)
    size = (len(shape.names), shape.rows, shape.heads, shape.positions, shape.width)
    # Nobody writes there, but torch wants memory that one could write to.
    past = np.memmap(folder / "past", np.float32, "c", shape=size)
    return {"states": np.load(folder / "states.npy")[:rows]} | {
        name: past[index, :rows] for index, name in enumerate(shape.names)
    }


def estimator(frames: int) -> Arrays:
    """What a step of the estimator takes for so many frames."""
    draw = np.random.default_rng(0)
    whole = (1, BANDS, frames)
    shapes = {"noisy": whole, "wanted": whole, "speaker": (1, BANDS), "prompt": whole}
    drawn = {name: draw.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    return {**drawn, "time": np.array([TIME], np.float32), "until": np.array([UNTIL], np.float32)}
