"""Runs a worker's app on its Unix socket until it is asked to end, or until its model turns out not to load."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn

import uvicorn

from voices.registry import VoiceError
from voices.watched_registry import WatchedRegistry
from worker.app import create_app
from worker.contract import Phase
from worker.crash_history import CrashHistory
from worker.engines import load
from worker.engines.base import Engine
from worker.logs import flush
from worker.options import WorkerOptions
from worker.precision import detect_processor, precision_remarks
from worker.runner import MODEL_THREAD, Runner
from worker.unix_listener import listen

log = logging.getLogger(__name__)

FAILED_SECONDS = 30.0
"""Time that a worker whose model cannot load stays up to say why, before it ends to be started afresh."""

KEEP_ALIVE_SECONDS = 3600
"""Longer than the balancer keeps an idle connection: it must never pick one that is just being closed here."""


def serve(options: WorkerOptions, history: CrashHistory, *, failed_seconds: float = FAILED_SECONDS) -> NoReturn:
    """Serve one worker on its socket. Ends the process: with 0 when asked to, with 1 if the model cannot load.

    A worker whose model cannot load answers for `failed_seconds`, to say why, before it ends.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)

    def end_well(*_: object) -> NoReturn:
        history.end()
        _end(0)

    def end_without_model(failure: threading.ExceptHookArgs) -> None:
        try:
            log.critical("thread %s failed", failure.thread and failure.thread.name, exc_info=failure.exc_value)
        finally:
            if failure.thread is not None and failure.thread.name == MODEL_THREAD:
                _end(1)

    # Without its model's thread a worker would accept utterances and never answer.
    threading.excepthook = end_without_model
    # uvicorn raises the signal again once it has finished what was in flight: that is a clean end.
    signal.signal(signal.SIGTERM, end_well)
    try:
        registry = WatchedRegistry(options.voices_dir)
    except VoiceError as error:
        sys.exit(f"worker {options.index}: {error}")

    def begin() -> Engine:
        history.begin()
        if options.engine.batched is not None:
            for remark in precision_remarks(options.engine.precision, detect_processor()):
                log.info("%s", remark)
        try:
            return load(options.engine)
        finally:
            # No later collection looks at what libraries and model consist of, which would take half a second each.
            gc.freeze()
            gc.enable()

    crashes = history.read()
    logging.getLogger().addHandler(history.logging())
    runner = Runner(
        begin, registry, crashes=crashes, watchdog_seconds=options.watchdog_seconds, log_text=options.log_text
    )
    app = create_app(runner, index=options.index, engine=options.engine.engine, threads=options.engine.threads)
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, timeout_keep_alive=KEEP_ALIVE_SECONDS)
    )
    asyncio.run(_serve(server, runner, history, options.socket, failed_seconds))
    if runner.phase is Phase.FAILED and not runner.draining:
        _end(1)
    end_well()


def _end(code: int) -> NoReturn:
    """End without the interpreter's own way out, which aborts where the model's thread is inside native code."""
    flush()
    os._exit(code)


async def _serve(
    server: uvicorn.Server, runner: Runner, history: CrashHistory, path: Path, failed_seconds: float
) -> None:
    beside = [
        asyncio.create_task(_follow_start(server, runner, history, failed_seconds)),
        asyncio.create_task(_end_when_drained(server, runner)),
    ]
    try:
        await server.serve(sockets=[listen(path)])
    finally:
        for task in beside:
            task.cancel()


async def _follow_start(server: uvicorn.Server, runner: Runner, history: CrashHistory, failed_seconds: float) -> None:
    await runner.settled()
    history.settle()
    if runner.phase is Phase.FAILED:
        await asyncio.sleep(failed_seconds)
        log.error("ending, to be started afresh: %s", runner.reason)
        server.should_exit = True


async def _end_when_drained(server: uvicorn.Server, runner: Runner) -> None:
    await runner.drained()
    log.info("drained: ending")
    # The answer to the last utterance is finished first.
    server.should_exit = True
