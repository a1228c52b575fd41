"""`python -m worker.check_precision`: compares precisions with the upstream classes, for `chorus check-precision`.

Reads the texts, a JSON list, from standard input. Writes JSON lines to standard output: `{"done", "of", "doing"}` for
progress, and in the end either `{"report"}`, or `{"refused"}` with what cannot be synthesized and why, and exit code 2.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from voices.registry import Registry
from worker.cards import FlowModel
from worker.checkpoints.catalogue import CHECKPOINTS
from worker.cpu_affinity import confine, limit_torch
from worker.memory import limit_primitive_cache
from worker.precision import Precision

REFUSED = 2
"""Exit code if a voice, a text or the weights cannot be used; the last line of the output says why."""


def main() -> None:
    """Read the command line and the texts, compare, write the report."""
    arguments = _arguments()
    write_event = _event_writer()
    texts = json.load(sys.stdin)
    confine(os.sched_getaffinity(0), arguments.threads)
    os.environ["HF_HUB_OFFLINE"] = "1"
    limit_primitive_cache()
    from worker.engines.chatterbox.upstream.lean_imports import lean_imports  # noqa: PLC0415 - loads NumPy

    with lean_imports():
        limit_torch(arguments.threads)
        from worker.engines.chatterbox.kernels import disk_cache  # noqa: PLC0415 - loads NumPy

        disk_cache.enable(arguments.cache_dir)
        from worker.engines.base import EngineError, VoiceSource  # noqa: PLC0415 - these load numerical libraries
        from worker.engines.chatterbox.precision_check.comparison import Task, compare  # noqa: PLC0415

    registry = Registry.load(arguments.voices_dir)
    voice = registry.resolve(arguments.voice)
    task = Task(
        engine=arguments.engine,
        checkpoint=arguments.model_dir,
        cache=arguments.cache_dir,
        source=VoiceSource(voice, None if voice.reference is None else registry.reference(voice)),
        texts=texts,
        precisions=arguments.precision,
        seed=arguments.seed,
        language=arguments.language,
        token_budget=arguments.max_tokens,
        recognise=arguments.recognise,
        flow=arguments.flow,
        flow_steps=arguments.flow_steps,
    )
    try:
        report = compare(task, lambda done, doing: write_event(done=done, of=task.steps, doing=doing))
    except EngineError as error:
        write_event(refused=str(error))
        sys.exit(REFUSED)
    write_event(report=report.model_dump(mode="json", by_alias=True))


def _event_writer() -> Callable[..., None]:
    """Returns a function that writes events to standard output; what upstream prints goes to standard error."""
    lines = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def write_event(**event: Any) -> None:
        print(json.dumps(event), file=lines, flush=True)

    return write_event


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="check_precision", description="Compares precisions with upstream.")
    parser.add_argument("--engine", choices=sorted(CHECKPOINTS), required=True)
    parser.add_argument("--model-dir", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--cache-dir", type=Path, required=True, help="folder for results that are computed once")
    parser.add_argument("--voices-dir", type=Path, required=True, help="folder of voices")
    parser.add_argument("--voice", required=True, help="a voice's name or alias")
    parser.add_argument("--language", required=True, help="language of the texts, such as en")
    parser.add_argument("--precision", type=Precision, choices=list(Precision), action="append", required=True)
    parser.add_argument("--flow", type=FlowModel, choices=list(FlowModel), default=FlowModel.UPSTREAM)
    parser.add_argument("--flow-steps", type=int, help="Euler steps of the precisions' flow; default: upstream's")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--max-tokens", type=int, help="maximum speech tokens per text; default: by its length")
    parser.add_argument(
        "--recognise", action="store_true", help="measure word error rates, if the recogniser supports the language"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
