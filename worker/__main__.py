"""`python -m worker`: one worker process, as supervisord starts it.

Confines itself to its cores first and imports everything else after that, numpy included.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from worker.cards import CARDS, PROMPT_SECONDS, Runtime
from worker.cpu_affinity import AffinityError, confine
from worker.crash_history import CrashHistory
from worker.logs import configure
from worker.precision import Precision


def main() -> None:
    """Read the command line, confine the process, serve until SIGTERM."""
    arguments = _arguments()
    history = CrashHistory(arguments.run_dir, arguments.index)
    configure(f"worker-{arguments.index}", level=arguments.log_level, log_format=arguments.log_format)
    cpus, threads = arguments.layout[arguments.index]
    try:
        confine(cpus, threads)
    except AffinityError as error:
        sys.exit(f"worker {arguments.index}: {error}")
    from worker.server import serve  # noqa: PLC0415 - numerical libraries load here, after the limits

    serve(
        index=arguments.index,
        engine=arguments.engine,
        threads=threads,
        slots=arguments.slots,
        runtime=Runtime(arguments.runtime),
        precision=Precision(arguments.precision),
        prompt_seconds=arguments.prompt_seconds,
        path=arguments.run_dir / f"worker-{arguments.index}.sock",
        voices=arguments.voices,
        model_dir=arguments.model_dir,
        cache=arguments.cache_dir,
        history=history,
        watchdog_seconds=arguments.watchdog_seconds,
        log_text=arguments.log_text == "true",
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="worker", description="One Chorus worker.")
    parser.add_argument("--index", type=int, required=True, help="number of this worker, from 0")
    parser.add_argument("--engine", choices=sorted(CARDS), required=True)
    parser.add_argument(
        "--layout",
        type=_places,
        required=True,
        help="every worker's CPU numbers and threads, by worker number: 0,8/1;1,9/1",
    )
    parser.add_argument("--runtime", choices=[*map(str, Runtime)], default=Runtime.BATCHED)
    parser.add_argument("--precision", choices=[*map(str, Precision)], default=Precision.FP32)
    parser.add_argument("--prompt-seconds", type=int, default=PROMPT_SECONDS, help="most of a voice's clip")
    parser.add_argument("--slots", type=int, default=1, help="utterances at once")
    parser.add_argument("--run-dir", type=Path, required=True, help="folder of the sockets")
    parser.add_argument("--voices", type=Path, required=True, help="folder of voices")
    parser.add_argument("--model-dir", type=_folder, help="folder of the checkpoint; none, or '': the hub's cache")
    parser.add_argument("--cache-dir", type=Path, required=True, help="folder for what is computed once")
    parser.add_argument("--watchdog-seconds", type=float, default=0.0, help="longest time without progress; 0: any")
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    parser.add_argument("--log-text", choices=("true", "false"), default="false", help="log what is spoken, too")
    arguments = parser.parse_args()
    if not 0 <= arguments.index < len(arguments.layout):
        parser.error(f"argument --index: {arguments.index} is not in a layout of {len(arguments.layout)}")
    return arguments


def _folder(text: str) -> Path | None:
    # supervisord can only pass a variable that is set, if to nothing.
    return Path(text) if text else None


def _places(text: str) -> list[tuple[tuple[int, ...], int]]:
    places = []
    for place in text.split(";"):
        cpus, _, threads = place.partition("/")
        if int(threads) < 1:
            raise argparse.ArgumentTypeError(f"{place!r} leaves no thread")
        places.append((tuple(map(int, cpus.split(","))), int(threads)))
    return places


if __name__ == "__main__":
    main()
