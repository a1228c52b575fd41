"""`chorus check-precision`: how far precisions are from upstream's own arithmetic, on the operator's weights and texts.

This process loads no model: `python -m worker.check_precision` measures, and tells how far it is.
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
from balancer.host.calibration_run import TEXTS
from balancer.requests.bodies import DEFAULT_VOICE
from balancer.settings import Settings, SettingsError
from balancer.settings_groups import REPOSITORY
from voices.registry import Registry, UnknownVoiceError, Voice, VoiceError
from worker.cards import Choice, EngineCard
from worker.checkpoints.catalogue import CHECKPOINTS, CheckpointError, find, missing_extra
from worker.precision import Precision, detect_processor, unsupported_reason

EXIT_BAD_INPUT = 2
EXIT_BROKEN = 3
"""It could not be measured. (1: it was, and a precision is not recommended.)"""
EXIT_INTERRUPTED = 130

PROGRAM = ("-m", "worker.check_precision")
"""What Python runs to measure."""
REFUSED = 2
"""What that ends with where it says what is wrong."""
TAIL_LINES = 15


def check_precision(
    *,
    engine: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(CHECKPOINTS)}; left out: the one that is set.")
    ] = None,
    model_dir: Annotated[
        Path | None, typer.Option(help="Folder of the engine's weights; left out: the hub's cache.")
    ] = None,
    voice: Annotated[str, typer.Option(help="A voice's name or alias.")] = DEFAULT_VOICE,
    language: Annotated[
        str | None, typer.Option(help="What the texts are in, for engines that know several; left out: the voice's.")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="A text to compare with; may be given more than once. Left out: a few.")
    ] = None,
    texts: Annotated[Path | None, typer.Option(help="File of more texts, one a line.")] = None,
    precision: Annotated[
        list[Precision] | None,
        typer.Option(help="May be given more than once; left out: all that this processor has instructions for."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Another one has upstream draw other tokens.")] = 0,
    most_tokens: Annotated[
        int | None, typer.Option(min=1, help="Speech tokens of a text, 25 a second; left out: by its length.")
    ] = None,
    recognise: Annotated[
        bool, typer.Option("--recognise/--no-recognise", help="Whether a speech recogniser listens, too.")
    ] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all figures as JSON, those of each text among them.")
    ] = False,
) -> None:
    """Compare precisions with upstream's own arithmetic, on your weights, voice and texts, and say which are fit.

    Upstream's own classes speak each text; then every precision is led along the same tokens, noise and spectrogram.
    That takes minutes. Ends with exit code 1 where a precision is not recommended.
    """
    try:
        settings = Settings.load(engine=engine, model_dir=model_dir)
    except SettingsError as error:
        fail(str(error), EXIT_BAD_INPUT)
    card, checkpoint = settings.engine.card, _checkpoint(settings)
    chosen = _voice(settings, card, voice)
    command = [
        *(sys.executable, *PROGRAM, "--engine", card.name, "--model-dir", str(checkpoint)),
        *("--cache-dir", str(settings.storage.cache_dir)),
        *("--voices", str(settings.storage.voices_dir), "--voice", chosen.name),
        *("--language", _language(card, chosen, language), "--seed", str(seed)),
        *("--threads", str(settings.layout.threads or _cores())),
        *(word for each in _precisions(precision) for word in ("--precision", each)),
        *(("--most-tokens", str(most_tokens)) if most_tokens is not None else ()),
        *(("--recognise",) if recognise else ()),
    ]
    with _ended_cleanly():
        report = _measure(command, _texts(card, text or [], texts))
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        precision_report.show(report, Console())
    if not report["fit"]:
        raise typer.Exit(EXIT_REFUSED)


def _measure(command: Sequence[str], texts: Sequence[str]) -> dict[str, Any]:
    """The report of the measuring program; ends this one where there is none."""
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
        # The run's own words go to its log, which counts if it fails.
        with subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process:
            try:
                assert process.stdin is not None  # noqa: S101 - asked for above, told to mypy
                assert process.stdout is not None  # noqa: S101
                _hand_over(process.stdin, texts)
                last: dict[str, Any] = {}
                for line in process.stdout:
                    last = json.loads(line)
                    if "doing" in last:
                        bar.update(task, description=last["doing"], completed=last["done"], total=last["of"])
                process.wait()
            finally:
                process.kill()
        log.seek(0)
        said = log.read().decode(errors="replace").splitlines()[-TAIL_LINES:]
    if process.returncode == REFUSED and "refused" in last:
        fail(last["refused"], EXIT_BAD_INPUT)
    if process.returncode != 0:
        out_of_memory = "; perhaps the memory is too small" if process.returncode == -9 else ""
        lines = "\n  ".join(["", *said])
        fail(f"the measuring program ended with {process.returncode}{out_of_memory}:{lines}", EXIT_BROKEN)
    report: dict[str, Any] = last["report"]
    return report


@contextmanager
def _ended_cleanly() -> Iterator[None]:
    """A block that SIGTERM and a closed terminal end as Ctrl-C does: with the program that it started."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # A shell that starts a command in the background has it ignore Ctrl-C.
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    except KeyboardInterrupt:
        tell("interrupted")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _hand_over(pipe: IO[str], texts: Sequence[str]) -> None:
    try:
        with pipe:
            json.dump(texts, pipe)
    except BrokenPipeError:
        pass  # it has ended already, and is asked why below


def _checkpoint(settings: Settings) -> Path:
    card = settings.engine.card
    if card.name not in CHECKPOINTS:
        fail(
            f"engine {card.name} has one precision only; name another with --engine: {', '.join(CHECKPOINTS)}",
            EXIT_BAD_INPUT,
        )
    if missing := missing_extra(card):
        fail(missing, EXIT_BAD_INPUT)
    try:
        engine = settings.engine
        return find(CHECKPOINTS[card.name], model_dir=engine.model_dir, revision=engine.model_revision)
    except CheckpointError as error:
        fail(str(error), EXIT_BAD_INPUT)


def _voice(settings: Settings, card: EngineCard, name: str) -> Voice:
    try:
        voice = Registry.load(settings.storage.voices_dir).resolve(name)
    except (VoiceError, UnknownVoiceError) as error:
        fail(str(error), EXIT_BAD_INPUT)
    if not voice.fits(card.name, clones_voices=card.clones_voices):
        fail(f"engine {card.name} cannot speak the voice {voice.name!r}", EXIT_BAD_INPUT)
    return voice


def _language(card: EngineCard, voice: Voice, asked: str | None) -> str:
    choice = card.parameter("language")
    if not isinstance(choice, Choice):
        if asked not in (None, "en"):
            fail(f"engine {card.name} speaks English only", EXIT_BAD_INPUT)
        return "en"
    language = asked or voice.language.partition("-")[0]
    if language not in choice.choices:
        fail(f"engine {card.name} does not speak {language!r}; it speaks: {', '.join(choice.choices)}", EXIT_BAD_INPUT)
    return language


def _precisions(asked: Sequence[Precision] | None) -> list[Precision]:
    found = detect_processor()
    if not asked:
        return [each for each in Precision if found.supports(each)]
    for each in asked:
        if refused := unsupported_reason(each, found):
            fail(refused, EXIT_BAD_INPUT)
    return list(dict.fromkeys(asked))


def _texts(card: EngineCard, given: Sequence[str], file: Path | None) -> list[str]:
    lines = list(given)
    if file is not None:
        try:
            lines += [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            fail(f"cannot read the texts in {file}: {reason}", EXIT_BAD_INPUT)
    if not lines and file is not None:
        fail(f"there is no text in {file}: one goes on each line", EXIT_BAD_INPUT)
    for number, text in enumerate(lines, 1):
        if not text.strip():
            fail(f"text {number} is empty", EXIT_BAD_INPUT)
        if card.longest_text is not None and len(text) > card.longest_text:
            fail(
                f"text {number} ({text[:30]}…) has {len(text)} characters; engine {card.name} speaks at most "
                f"{card.longest_text} at once",
                EXIT_BAD_INPUT,
            )
    return lines or list(TEXTS)


def _cores() -> int:
    """Threads for a program that has this host's cores for itself."""
    allowed = len(os.sched_getaffinity(0))
    return min(psutil.cpu_count(logical=False) or allowed, allowed)
