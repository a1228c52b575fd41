"""The engines: each a module here, loaded only in the worker that runs it."""

from __future__ import annotations

import os
from pathlib import Path

from worker.cards import CARDS, PROMPT_SECONDS, Runtime
from worker.checkpoints.catalogue import CHECKPOINTS, CheckpointError, find, missing_extra
from worker.cpu_affinity import limit_torch
from worker.engines.base import Engine, ModelUnavailableError
from worker.engines.chatterbox.kernels.disk_cache import keep
from worker.memory import MAX_CACHED_BLOCKS, MAX_CACHED_CONVOLUTIONS, limit_primitive_cache
from worker.precision import Precision


def load(
    name: str,
    *,
    threads: int,
    slots: int = 1,
    model_dir: Path | None,
    cache: Path,
    runtime: Runtime | str = Runtime.BATCHED,
    precision: Precision | str = Precision.FP32,
    prompt_seconds: int = PROMPT_SECONDS,
) -> Engine:
    """Load an engine's libraries and weights. Raises ModelUnavailableError with the mend.

    `slots` is how many utterances it is to speak at once, `prompt_seconds` how much of a voice's clip leads the
    batched runtime's decoder of sound, at most. An engine without a batched runtime ignores `runtime`. `model_dir`
    holds the checkpoint; None: the hub's cache does. `cache` is for what an engine computes once.
    Imports happen here so that a worker carries no library of an engine that it does not run.
    """
    runtime, precision = Runtime(runtime), Precision(precision)
    if name not in CARDS:
        raise ValueError(f"no engine {name!r}")
    if (misfit := CARDS[name].misfit(runtime, precision, slots, prompt_seconds)) is not None:
        raise ModelUnavailableError(misfit)
    if name == "hibari":
        from worker.engines.hibari import HibariEngine  # noqa: PLC0415

        return HibariEngine(threads)
    checkpoint = _checkpoint(name, model_dir)
    # Whatever is not in the checkpoint is not fetched behind the operator's back, nor once by each worker.
    os.environ["HF_HUB_OFFLINE"] = "1"
    limit_primitive_cache(MAX_CACHED_BLOCKS if runtime is Runtime.BATCHED else MAX_CACHED_CONVOLUTIONS)
    keep(cache)
    limit_torch(threads)
    if runtime is Runtime.BATCHED:
        from worker.engines.chatterbox.batched import BatchedEngine  # noqa: PLC0415

        return BatchedEngine(name, checkpoint, cache, slots=slots, precision=precision, prompt_seconds=prompt_seconds)
    from worker.engines.chatterbox.stock import StockEngine  # noqa: PLC0415

    return StockEngine(name, checkpoint, cache)


def _checkpoint(name: str, model_dir: Path | None) -> Path:
    if (missing := missing_extra(CARDS[name])) is not None:
        raise ModelUnavailableError(missing)
    try:
        return find(CHECKPOINTS[name], model_dir=model_dir, revision=None)
    except CheckpointError as error:
        raise ModelUnavailableError(str(error)) from error
