"""Adds a mean flow of random weights to a checkpoint of random weights, for `CHORUS_FLOW=meanflow`.

It has the checkpoint's own speech tokenizer and speaker encoder, as Turbo's has those of the Original.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from scripts.support.console import run_command
from worker.cards import CARDS, FlowModel
from worker.checkpoints.catalogue import MEANFLOW
from worker.engines.chatterbox.upstream.lean_imports import lean_imports

with lean_imports():
    import torch
    from safetensors.torch import load_file, save_file
    from torch import Tensor

    from worker.engines.chatterbox.upstream.encoders import ENCODERS
    from worker.engines.chatterbox.upstream.loading import VARIANTS

ENGINES = tuple(name for name, card in CARDS.items() if FlowModel.MEANFLOW in card.flows)
"""The engines that can run the mean flow."""

_TIME_WIDTH = "flow.decoder.estimator.time_mlp.linear_2.bias"
"""A tensor with as many numbers as the embedding of a time has."""
_TIME_MIXER = "flow.decoder.estimator.time_embed_mixer.weight"


def main(
    engine: Annotated[str, typer.Argument(help=f"One of {', '.join(ENGINES)}.")],
    folder: Annotated[Path, typer.Argument(help="Folder of its checkpoint, to which the file is added.")],
) -> None:
    """Add a mean flow of random weights to a checkpoint."""
    if engine not in ENGINES:
        raise typer.BadParameter(f"{engine!r} runs no other flow than its own; there are: {', '.join(ENGINES)}")
    write_mean_flow(engine, folder)


def write_mean_flow(engine: str, folder: Path) -> Path:
    """Write the file of a mean flow beside the checkpoint's own files; returns its path."""
    own = folder / VARIANTS[engine].s3gen_file
    state = torch.load(own, mmap=True, weights_only=True) if own.suffix == ".pt" else load_file(own)
    (name,) = MEANFLOW.files
    unfinished = folder / f".{name}"
    save_file(mean_flow_of(state), unfinished)
    return unfinished.rename(folder / name)


def mean_flow_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a mean flow with the encoders of an S3Gen, whose weights are `state`.

    Its other weights are those of `state` in another order, which are as random; and a mixer of two times.
    """
    width = len(state[_TIME_WIDTH])
    mixer = torch.randn(width, 2 * width, generator=torch.Generator().manual_seed(0)) / math.sqrt(2 * width)
    weights = {
        name: tensor.contiguous() if tensor.dim() == 0 or name.startswith(ENCODERS) else tensor.roll(1, 0)
        for name, tensor in state.items()
    }
    return weights | {_TIME_MIXER: mixer}


if __name__ == "__main__":
    run_command(main, "python -m scripts.support.make_mean_flow")
