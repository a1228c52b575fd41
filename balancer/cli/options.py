"""Command line options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from worker.cards import CARDS, Runtime
from worker.precision import Precision

EngineOption = Annotated[str | None, typer.Option(help=f"Engine: {', '.join(sorted(CARDS))}; default: as configured.")]
ModelDirOption = Annotated[
    Path | None, typer.Option(help="Directory of the engine's weights; default: the cache of the Hugging Face hub.")
]
RuntimeOption = Annotated[
    Runtime | None, typer.Option(help="Batched decoding of several utterances, or the upstream classes, one at a time.")
]
PrecisionOption = Annotated[Precision | None, typer.Option(help="Number format of the batched runtime.")]
