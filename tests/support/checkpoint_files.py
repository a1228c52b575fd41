"""Small files in the formats of real checkpoints: intact, but without usable weights."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path

from worker.checkpoints.catalogue import Checkpoint

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def safetensors(size: int = 5000, seed: int = 0, names: Iterable[str] = ()) -> bytes:
    """A safetensors file with `size` bytes of weights, and empty tensors of the given names."""
    tensors = {
        "a": {"dtype": "U8", "shape": [100], "data_offsets": [0, 100]},
        "b": {"dtype": "U8", "shape": [size - 100], "data_offsets": [100, size]},
    }
    tensors |= {name: {"dtype": "U8", "shape": [0], "data_offsets": [size, size]} for name in names}
    header = json.dumps({"__metadata__": {"format": "pt"}} | tensors).encode()
    return struct.pack("<Q", len(header)) + header + random.Random(seed).randbytes(size)


def pickled(size: int = 5000) -> bytes:
    """A .pt file: a zip of uncompressed entries."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", b"pickled")
        archive.writestr("archive/data/0", random.Random(0).randbytes(size))
    return content.getvalue()


def files_of(checkpoint: Checkpoint) -> dict[str, bytes]:
    """Contents of every file of a checkpoint by name, all different; `t3…` is the largest, as in real checkpoints."""
    files = {}
    for index, name in enumerate((*checkpoint.files, *checkpoint.optional)):
        files[name] = {
            ".safetensors": safetensors(
                20_000 if name.startswith("t3") else 5000, seed=index, names=checkpoint.tensors.get(name, ())
            ),
            ".pt": pickled(5000 + index),
            ".json": json.dumps({"file": name}).encode(),
            ".txt": b"a b\n",
        }[Path(name).suffix]
    return files


def write(checkpoint: Checkpoint, folder: Path) -> Path:
    """Write every file of a checkpoint into `folder`; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files_of(checkpoint).items():
        (folder / name).write_bytes(content)
    return folder
