"""The inputs of the steps: random numbers, drawn once, the same for every backend."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.float32]]
"""Inputs by name, in the order of the step's arguments."""

SHARED_POSITIONS = 376
"""The positions that all rows have in common: those of a voice of Turbo and Nano, the speaker and 375 tokens."""

BANDS = 80
START_TIME, END_TIME = 0.0, 0.5
"""Of the first of mean flow's two steps."""


@dataclass(frozen=True)
class KVCacheShape:
    """The size of the KV cache of a decode step."""

    layers: int
    rows: int
    """Batch size."""
    heads: int
    positions: int
    """Cached positions, without the one that is computed."""
    head_width: int

    @property
    def names(self) -> list[str]:
        """The names of the cache's arrays, in the order of the step's arguments."""
        return [f"{kind}_{layer}" for layer in range(self.layers) for kind in ("keys", "values")]


def write_decode_inputs(folder: Path, shape: KVCacheShape) -> None:
    """Draw the inputs of a decode step, and write them to files that all backends map into memory."""
    draw = np.random.default_rng(0)
    numbers = draw.standard_normal((shape.rows, shape.heads, shape.positions, shape.head_width), np.float32)
    numbers[1:, :, :SHARED_POSITIONS] = numbers[0, :, :SHARED_POSITIONS]
    with (folder / "kv_cache").open("wb") as file:
        for _ in shape.names:
            numbers.tofile(file)
    np.save(folder / "states.npy", draw.standard_normal((shape.rows, shape.heads * shape.head_width), np.float32))
    (folder / "shape.json").write_text(json.dumps(asdict(shape)), encoding="utf-8")


def read_shape(folder: Path) -> KVCacheShape:
    """The shape of the inputs in `folder`."""
    return KVCacheShape(**json.loads((folder / "shape.json").read_text(encoding="utf-8")))


def decode_inputs(folder: Path, rows: int) -> Arrays:
    """The first `rows` rows of the inputs in `folder`; the KV cache is mapped into memory, not copied.

    They are the states, (rows, width), then the keys and values of each layer, (rows, heads, positions, head_width).
    """
    shape = read_shape(folder)
    size = (len(shape.names), shape.rows, shape.heads, shape.positions, shape.head_width)
    # Mode "c": nothing is written there, but PyTorch warns of memory that cannot be written.
    cache = np.memmap(folder / "kv_cache", np.float32, "c", shape=size)
    return {"states": np.load(folder / "states.npy")[:rows]} | {
        name: cache[index, :rows] for index, name in enumerate(shape.names)
    }


def estimator_inputs(frames: int) -> Arrays:
    """The inputs of an estimator's step, in the order of `EstimatorStep.forward`."""
    draw = np.random.default_rng(0)
    mel = (1, BANDS, frames)
    shapes = {"noisy": mel, "encoded": mel, "speaker": (1, BANDS), "prompt": mel}
    drawn = {name: draw.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    return {**drawn, "start_time": np.array([START_TIME], np.float32), "end_time": np.array([END_TIME], np.float32)}
