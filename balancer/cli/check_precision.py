"""`chorus check-precision`: how far each precision is from the upstream classes, on the operator's weights and texts.

This process loads no model: `python -m worker.check_precision` measures, and reports its progress as JSON lines.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any

import psutil
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from balancer.cli import precision_report
from balancer.cli.console import EXIT_REFUSED, fail, messages, tell
from balancer.cli.options import ModelDirOption
from balancer.host.calibration_run import TEXTS
from balancer.requests.bodies import DEFAULT_VOICE
from balancer.runtime.repository import REPOSITORY
from balancer.settings.settings import Settings, SettingsError
from voices.registry import Registry, UnknownVoiceError, Voice, VoiceError
from worker.cards import Choice, EngineCard, FlowModel
from worker.checkpoints.catalogue import CHECKPOINTS, CheckpointError, find, find_meanflow, missing_extra
from worker.options import EngineOptions
from worker.precision import Precision, detect_processor, unsupported_reason

EXIT_BAD_INPUT = 2
EXIT_FAILED = 3
"""The measurement failed. (1 means that it succeeded, and a precision is not recommended.)"""
EXIT_INTERRUPTED = 130

PROGRAM = ("-m", "worker.check_precision")
"""Arguments of Python that start the measuring program."""
PROGRAM_REFUSED = 2
"""Exit code of the measuring program if it reports why it cannot measure."""
MAX_LOG_LINES = 15
"""Lines from the end of the program's log that an error quotes."""


def check_precision(
    *,
    engine: Annotated[
        str | None, typer.Option(help=f"Engine: {', '.join(CHECKPOINTS)}; default: as configured.")
    ] = None,
    model_dir: ModelDirOption = None,
    voice: Annotated[str, typer.Option(help="Name or alias of the voice.")] = DEFAULT_VOICE,
    language: Annotated[
        str | None, typer.Option(help="Language of the texts, for multilingual engines; default: the voice's.")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="Text to synthesize; may be repeated; default: a few built-in texts.")
    ] = None,
    texts: Annotated[Path | None, typer.Option(help="File with more texts, one per line.")] = None,
    precision: Annotated[
        list[Precision] | None,
        typer.Option(help="Precision to check; may be repeated; default: all that this processor supports."),
    ] = None,
    flow: Annotated[
        FlowModel | None, typer.Option(help="Flow of the precisions, compared with upstream's; default: as configured.")
    ] = None,
    flow_steps: Annotated[
        int | None, typer.Option(help="Steps of that flow, compared with upstream's number; default: as configured.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed with which the upstream classes draw tokens.")
    ] = 0,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Maximum speech tokens per text, 25 per second; default: by its length.")
    ] = None,
    recognise: Annotated[
        bool, typer.Option("--recognise/--no-recognise", help="Measure word error rates with a speech recogniser, too.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures, also of each text, as JSON.")] = False,
) -> None:
    """Compare precisions with the upstream classes, on your weights, voice and texts, and report which to use.

    The upstream classes synthesize each text; then each precision is run on the
    same tokens, noise and spectrogram (teacher forcing). This takes minutes. The
    exit code is 1 if a precision is not recommended.
    """
    try:
        settings = Settings.load(engine=engine, model_dir=model_dir, flow=flow, flow_steps=flow_steps)
    except SettingsError as error:
        fail(str(error), EXIT_BAD_INPUT)
    card, checkpoint = settings.engine.card, _checkpoint(settings)
    resolved_voice = _voice(settings, card, voice)
    command = [
        *(sys.executable, *PROGRAM, "--engine", card.name, "--model-dir", str(checkpoint)),
        *("--cache-dir", str(settings.storage.cache_dir)),
        *("--voices-dir", str(settings.storage.voices_dir), "--voice", resolved_voice.name),
        *("--language", _language(card, resolved_voice, language), "--seed", str(seed)),
        *("--threads", str(settings.layout.threads or _default_threads())),
        *(argument for each in _precisions(precision) for argument in ("--precision", each)),
        *("--flow", settings.engine.flow),
        *(("--flow-steps", str(settings.engine.flow_steps)) if settings.engine.flow_steps is not None else ()),
        *(("--max-tokens", str(max_tokens)) if max_tokens is not None else ()),
        *(("--recognise",) if recognise else ()),
    ]
    with _clean_interruption():
        report = _measure(command, _texts(card, text or [], texts))
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        precision_report.show(report, Console())
    if not report["fit"]:
        raise typer.Exit(EXIT_REFUSED)


def _measure(command: Sequence[str], texts: Sequence[str]) -> dict[str, Any]:
    """Runs the measuring program and returns its report. Ends the command if it fails."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=messages,
        transient=True,
        disable=not messages.is_terminal,
    )
    with bar, tempfile.TemporaryFile() as log:
        task = bar.add_task("starting", total=None)
        # The log is only shown if the program fails.
        with subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process:
            try:
                assert process.stdin is not None  # noqa: S101 - PIPE was passed above; mypy does not know
                assert process.stdout is not None  # noqa: S101
                _send_texts(process.stdin, texts)
                event: dict[str, Any] = {}
                for line in process.stdout:
                    event = json.loads(line)
                    if "doing" in event:
                        bar.update(task, description=event["doing"], completed=event["done"], total=event["of"])
                process.wait()
            finally:
                process.kill()
        log.seek(0)
        log_tail = log.read().decode(errors="replace").splitlines()[-MAX_LOG_LINES:]
    if process.returncode == PROGRAM_REFUSED and "refused" in event:
        fail(event["refused"], EXIT_BAD_INPUT)
    if process.returncode != 0:
        out_of_memory = "; the host may have run out of memory" if process.returncode == -9 else ""
        lines = "\n  ".join(["", *log_tail])
        fail(f"the measuring program ended with {process.returncode}{out_of_memory}:{lines}", EXIT_FAILED)
    report: dict[str, Any] = event["report"]
    return report


@contextmanager
def _clean_interruption() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP end the block as Ctrl-C does, so that it ends the program that it started."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # A shell makes a command in the background ignore SIGINT.
    handlers = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    except KeyboardInterrupt:
        tell("interrupted")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _send_texts(pipe: IO[str], texts: Sequence[str]) -> None:
    try:
        with pipe:
            json.dump(texts, pipe)
    except BrokenPipeError:
        pass  # the program has ended already; its exit code is checked below


def _checkpoint(settings: Settings) -> Path:
    card = settings.engine.card
    if card.name not in CHECKPOINTS:
        fail(
            f"engine {card.name} has only one precision; choose another one with --engine: {', '.join(CHECKPOINTS)}",
            EXIT_BAD_INPUT,
        )
    if missing := missing_extra(card):
        fail(missing, EXIT_BAD_INPUT)
    engine = settings.engine
    options = EngineOptions(card.name, settings.storage.cache_dir, flow=engine.flow, flow_steps=engine.flow_steps)
    if (reason := options.unsupported_reason()) is not None:
        fail(reason, EXIT_BAD_INPUT)
    try:
        folder = find(CHECKPOINTS[card.name], model_dir=engine.model_dir, revision=engine.model_revision)
        if engine.flow is FlowModel.MEANFLOW:
            find_meanflow(folder)
        return folder
    except CheckpointError as error:
        fail(str(error), EXIT_BAD_INPUT)


def _voice(settings: Settings, card: EngineCard, name: str) -> Voice:
    try:
        voice = Registry.load(settings.storage.voices_dir).resolve(name)
    except (VoiceError, UnknownVoiceError) as error:
        fail(str(error), EXIT_BAD_INPUT)
    if not voice.fits(card.name, clones_voices=card.clones_voices):
        fail(f"engine {card.name} does not support the voice {voice.name!r}", EXIT_BAD_INPUT)
    return voice


def _language(card: EngineCard, voice: Voice, requested: str | None) -> str:
    choice = card.parameter("language")
    if not isinstance(choice, Choice):
        if requested not in (None, "en"):
            fail(f"engine {card.name} speaks English only", EXIT_BAD_INPUT)
        return "en"
    language = requested or choice.only or voice.language.partition("-")[0]
    if language not in choice.choices:
        fail(f"engine {card.name} does not speak {language!r}; it speaks: {', '.join(choice.choices)}", EXIT_BAD_INPUT)
    return language


def _precisions(requested: Sequence[Precision] | None) -> list[Precision]:
    processor = detect_processor()
    if not requested:
        return [precision for precision in Precision if processor.supports(precision)]
    for precision in requested:
        if reason := unsupported_reason(precision, processor):
            fail(reason, EXIT_BAD_INPUT)
    return list(dict.fromkeys(requested))


def _texts(card: EngineCard, given: Sequence[str], file: Path | None) -> list[str]:
    lines = list(given)
    if file is not None:
        try:
            lines += [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            fail(f"cannot read the texts in {file}: {reason}", EXIT_BAD_INPUT)
    if not lines and file is not None:
        fail(f"there is no text in {file}; write one text per line", EXIT_BAD_INPUT)
    for number, text in enumerate(lines, 1):
        if not text.strip():
            fail(f"text {number} is empty", EXIT_BAD_INPUT)
        if len(text) > card.segments.maximum:
            fail(
                f"text {number} ({text[:30]}…) has {len(text)} characters; engine {card.name} accepts at most "
                f"{card.segments.maximum}",
                EXIT_BAD_INPUT,
            )
    return lines or list(TEXTS)


def _default_threads() -> int:
    """Returns the number of threads for a program that has this host to itself: its physical cores."""
    allowed = len(os.sched_getaffinity(0))
    return min(psutil.cpu_count(logical=False) or allowed, allowed)
