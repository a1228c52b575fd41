"""The engines: each a module here, loaded only in the worker that runs it."""

from __future__ import annotations

import os
from pathlib import Path

from worker.cards import CARDS
from worker.checkpoints.catalogue import CHECKPOINTS, CheckpointError, find, missing_extra
from worker.cpu_affinity import limit_torch
from worker.engines.base import Engine, ModelUnavailableError
from worker.engines.chatterbox.kernels import disk_cache
from worker.engines.chatterbox.upstream.lean_imports import lean_imports
from worker.memory import MAX_CACHED_BLOCKS, MAX_CACHED_CONVOLUTIONS, limit_primitive_cache
from worker.options import EngineOptions


def load(options: EngineOptions) -> Engine:
    """Load an engine's libraries and weights. Raises ModelUnavailableError, whose message says what to do.

    Imports happen here so that a worker loads no library of an engine that it does not run.
    """
    name = options.engine
    if name not in CARDS:
        raise ValueError(f"no engine {name!r}")
    if (reason := options.unsupported_reason()) is not None:
        raise ModelUnavailableError(reason)
    if name == "hibari":
        from worker.engines.hibari import HibariEngine  # noqa: PLC0415

        return HibariEngine(options.threads)
    checkpoint = _checkpoint(name, options.model_dir)
    # Whatever is not in the checkpoint is not fetched behind the operator's back, nor once by each worker.
    os.environ["HF_HUB_OFFLINE"] = "1"
    limit_primitive_cache(MAX_CACHED_CONVOLUTIONS if options.batched is None else MAX_CACHED_BLOCKS)
    disk_cache.enable(options.cache_dir)
    with lean_imports():
        limit_torch(options.threads)
        if options.batched is None:
            from worker.engines.chatterbox.stock import StockEngine  # noqa: PLC0415
        else:
            from worker.engines.chatterbox.batched import BatchedEngine  # noqa: PLC0415
    if options.batched is None:
        return StockEngine(
            name,
            checkpoint,
            options.cache_dir,
            flow=options.flow,
            flow_steps=options.flow_steps,
            retakes=options.retakes,
            trim_end=options.trim_end,
        )
    return BatchedEngine(options, checkpoint)


def _checkpoint(name: str, model_dir: Path | None) -> Path:
    if (missing := missing_extra(CARDS[name])) is not None:
        raise ModelUnavailableError(missing)
    try:
        return find(CHECKPOINTS[name], model_dir=model_dir, revision=None)
    except CheckpointError as error:
        raise ModelUnavailableError(str(error)) from error
