"""The engines: each a module here, loaded only in the worker that runs it."""

from __future__ import annotations

from worker.engines.base import Engine


def load(name: str, threads: int) -> Engine:
    """Load an engine's libraries and weights. Raises ModelUnavailableError with the mend.

    Imports happen here so that a worker carries no library of an engine that it does not run.
    """
    if name == "hibari":
        from worker.engines.hibari import HibariEngine  # noqa: PLC0415

        return HibariEngine(threads)
    raise ValueError(f"no engine {name!r}")
