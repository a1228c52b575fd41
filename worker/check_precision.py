"""`python -m worker.check_precision`: compares precisions with upstream, as `chorus check-precision` starts it.

Reads the texts, a JSON list, from standard input, and writes JSON lines on standard output: `{"done", "of", "doing"}`
as it goes, at the end one `{"report"}`, or `{"refused"}` with what cannot be spoken and why, and exit code 2.
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
from worker.checkpoints.catalogue import CHECKPOINTS
from worker.cpu_affinity import confine, limit_torch
from worker.memory import limit_primitive_cache
from worker.precision import Precision

REFUSED = 2
"""Exit code: the message says what is wrong with a voice, a text or the weights."""


def main() -> None:
    """Read the command line and the texts, measure, report."""
    arguments = _arguments()
    tell = _events()
    texts = json.load(sys.stdin)
    confine(os.sched_getaffinity(0), arguments.threads)
    os.environ["HF_HUB_OFFLINE"] = "1"
    limit_primitive_cache()
    limit_torch(arguments.threads)
    from worker.engines.base import EngineError, VoiceSource  # noqa: PLC0415 - these load numerical libraries
    from worker.engines.chatterbox.precision_check.comparison import Task, compare  # noqa: PLC0415

    registry = Registry.load(arguments.voices)
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
    )
    try:
        report = compare(task, lambda done, doing: tell(done=done, of=task.steps, doing=doing))
    except EngineError as error:
        tell(refused=str(error))
        sys.exit(REFUSED)
    tell(report=report.model_dump(mode="json", by_alias=True))


def _events() -> Callable[..., None]:
    """Tells events where standard output was; whatever upstream prints joins the log on standard error."""
    lines = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def tell(**event: Any) -> None:
        print(json.dumps(event), file=lines, flush=True)

    return tell


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="check_precision", description="Compares precisions with upstream.")
    parser.add_argument("--engine", choices=sorted(CHECKPOINTS), required=True)
    parser.add_argument("--model-dir", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--cache-dir", type=Path, required=True, help="folder for what is computed once")
    parser.add_argument("--voices", type=Path, required=True, help="folder of voices")
    parser.add_argument("--voice", required=True, help="a voice's name or alias")
    parser.add_argument("--language", required=True, help="what the texts are in, such as en")
    parser.add_argument("--precision", type=Precision, choices=list(Precision), action="append", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--max-tokens", type=int, help="maximum speech tokens per text; default: by its length")
    parser.add_argument("--recognise", action="store_true", help="have a recogniser listen, if it can")
    return parser.parse_args()


if __name__ == "__main__":
    main()
