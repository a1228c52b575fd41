"""`chorus say`: speaks a text, a pipe or a document through a running server, into a file, a pipe or a player.

A text that is too long for one answer becomes a job, which is listened to while it is made.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from balancer.audio.formats import AudioFormat
from balancer.cli import player
from balancer.cli.console import LOCAL_URL, ApiKey, RefusedError, Url, fail, messages, request, streamed, tell
from balancer.documents import isolated_reading
from balancer.documents.document import KINDS, MAX_CHARACTERS, DocumentError, DocumentType

STANDARD_OUTPUT = 1
"""Its file descriptor."""

POLL_INTERVAL_SECONDS = 0.5

TOO_LONG = ("text_too_long", "body_too_large")
"""Codes of the refusal of a text that is too long."""


def say(
    text: Annotated[
        str | None, typer.Argument(help="Text to speak; - or nothing reads it from a pipe.", show_default=False)
    ] = None,
    *,
    file: Annotated[Path | None, typer.Option("-f", "--file", help=f"Document to speak: {KINDS}.")] = None,
    chapter: Annotated[
        int | None, typer.Option(min=1, help="Only this chapter of the document; 1 is its first.")
    ] = None,
    voice: Annotated[str, typer.Option(help="Name or alias of the voice.")] = "default",
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Output file; default: speech.FORMAT, or standard output if that is a pipe."
        ),
    ] = None,
    audio_format: Annotated[
        AudioFormat | None,
        typer.Option("--format", help="Audio format; default: by the output file's suffix, else wav."),
    ] = None,
    speed: Annotated[float, typer.Option(min=0.25, max=4.0, help="Speaking rate.")] = 1.0,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="Seed, which makes the audio reproducible.")
    ] = None,
    play: Annotated[bool, typer.Option("--play", help="Play it while it is made.")] = False,
    url: Url = LOCAL_URL,
    api_key: ApiKey = "",
) -> None:
    """Synthesize a text or a document with a running server, into a file, or into a pipe or a player while it is made.

    A text that is too long for one answer becomes a job of the server, which goes on should this command end.
    """
    if play and (output is not None or audio_format is not None):
        raise typer.BadParameter("--play writes no file: leave out -o and --format")
    if (text is not None and file is not None) or (chapter is not None and file is None):
        raise typer.BadParameter("give a text, or a document with --file, of which --chapter takes one chapter")
    words = _input(text) if file is None else _chapters(file, chapter)
    output_format = audio_format or _format_of(output)
    target = output or (Path(f"speech.{output_format}") if sys.stdout.isatty() else None)
    body: dict[str, Any] = {"text": words, "voice": voice, "format": output_format.value, "speed": speed}
    if seed is not None:
        body["seed"] = seed
    indicator = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=messages,
        transient=True,
        disable=not messages.is_terminal,
    )
    with indicator:
        _Speech(body, url, api_key, indicator).deliver(None if play else target, play=play)


@dataclass
class _Speech:
    """One text that the server speaks."""

    body: dict[str, Any]
    url: str
    api_key: str
    indicator: Progress

    def __post_init__(self) -> None:
        self._task: TaskID = self.indicator.add_task(self._doing)

    @property
    def _doing(self) -> str:
        return f"synthesizing {len(self.body['text'])} characters"

    def deliver(self, target: Path | None, *, play: bool) -> None:
        """Speak into the file `target`, else into the player or to standard output."""
        try:
            self._answer(target, play=play)
        except RefusedError:
            self._job(target, play=play)

    def _answer(self, target: Path | None, *, play: bool) -> None:
        """Have it in one answer. Raises RefusedError if it is too long for that."""
        if target is not None:
            response = request("POST", self.url, "/tts", self.api_key, expected=TOO_LONG, json=self.body)
            _write(target, response.content, float(response.headers["X-Audio-Seconds"]), self.body["format"])
            return
        body = self.body | {"stream": play or not _into_a_file()}
        self._pass_on(streamed("POST", self.url, "/tts", self.api_key, expected=TOO_LONG, json=body), play=play)

    def _job(self, target: Path | None, *, play: bool) -> None:
        """Have it as a job, and wait for that, or listen to it."""
        try:
            receipt = request(
                "POST", self.url, "/queue", self.api_key, accepted=(202,), expected=TOO_LONG, json=self.body
            ).json()
        except RefusedError as error:
            fail(f"{error}; for a part of a document, use --chapter")
        job_id: str = receipt["requestId"]
        tell(f"the text is long: it becomes the job {job_id}, which goes on should this command end")
        if target is not None or (not play and _into_a_file()):
            seconds = self._await(job_id)
            content = request("GET", self.url, f"/audio/{job_id}", self.api_key).content
            if target is not None:
                _write(target, content, seconds, self.body["format"])
            else:
                _to_standard_output(content)
            return
        self._await(job_id, beginning=True)
        self._pass_on(streamed("GET", self.url, f"/audio/{job_id}?stream=true", self.api_key), play=play)

    def _await(self, job_id: str, *, beginning: bool = False) -> float:
        """Wait for a job, or its beginning, and return how many seconds of audio there are. Ends if the job failed."""
        while True:
            status: dict[str, Any] = request("GET", self.url, f"/status/{job_id}", self.api_key).json()
            if status["ready"] or (beginning and status["streamUrl"]):
                return float(status["duration"] or 0.0)
            if status["state"] in ("failed", "cancelled"):
                reason = status["error"]["message"] if status["error"] else status["state"]
                fail(f"the job {job_id} has ended: {reason}")
            done = f"{status['segmentsDone']} of {status['segments']} segments" if status["segments"] else "queued"
            self.indicator.update(self._task, description=f"{self._doing}: {done}")
            time.sleep(POLL_INTERVAL_SECONDS)

    def _pass_on(self, answer: AbstractContextManager[Iterator[bytes]], *, play: bool) -> None:
        """Play audio, or pass it on to standard output, as it comes."""
        if not play:
            with answer as pieces:
                for piece in self._counted(pieces):
                    _to_standard_output(piece)
            return
        try:
            command = player.find_player()
            with answer as pieces:
                player.play(command, self._counted(pieces))
        except player.PlayerError as error:
            fail(str(error))

    def _counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The pieces; the indicator tells how much has come."""
        size = 0
        for piece in pieces:
            size += len(piece)
            self.indicator.update(self._task, description=f"{self._doing}: {size / 1000:,.0f} kB")
            yield piece


def _input(text: str | None) -> str:
    """The text of the command line, or that of standard input. Raises BadParameter if there is neither."""
    if text not in (None, "-"):
        return str(text)
    if text is None and sys.stdin.isatty():
        raise typer.BadParameter("give a text, a document with --file, or a pipe")
    words = sys.stdin.buffer.read().decode(errors="surrogateescape")
    if text is None and not words:
        raise typer.BadParameter("the pipe is empty: give a text, or a document with --file")
    return words


def _chapters(file: Path, chapter: int | None) -> str:
    """The text of a document, or of one of its chapters. Ends the command if it cannot be read."""
    kind = DocumentType.of_name(file.name)
    if kind is None:
        raise typer.BadParameter(f"{file.name!r} tells no type that can be read: {KINDS}")
    if kind is DocumentType.CSV:
        raise typer.BadParameter(
            "a table has many texts: send it to POST /documents, and its jobs to POST /queue/batch"
        )
    if not file.is_file():
        fail(f"there is no file {file}")
    try:
        document = json.loads(isolated_reading.read(file, kind, max_characters=MAX_CHARACTERS))
    except (DocumentError, OSError) as error:
        fail(f"{file}: {error}")
    chapters = document["chapters"]
    if chapter is None:
        return "\n\n".join(part["text"] for part in chapters)
    if chapter > len(chapters):
        titles = "\n".join(f"  {number}  {part['title']}" for number, part in enumerate(chapters, start=1))
        fail(f"{file} has no chapter {chapter}; it has\n{titles}")
    words: str = chapters[chapter - 1]["text"]
    return words


def _into_a_file() -> bool:
    """Whether standard output is a file, which is played later, and so is to have its length in its header."""
    return stat.S_ISREG(os.fstat(STANDARD_OUTPUT).st_mode)


def _write(target: Path, content: bytes, seconds: float, audio_format: str) -> None:
    try:
        target.write_bytes(content)
    except OSError as error:
        fail(f"cannot write {target}: {error.strerror}")
    tell(f"{target}: {seconds:.1f} s of {audio_format}")


def _to_standard_output(piece: bytes) -> None:
    try:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise  # the reader of the pipe has closed it
    except OSError as error:
        fail(f"cannot write to standard output: {error.strerror}")


def _format_of(output: Path | None) -> AudioFormat:
    if output is None:
        return AudioFormat.WAV
    formats = {audio_format.suffix: audio_format for audio_format in AudioFormat}
    if output.suffix.lower() not in formats:
        known = ", ".join(formats)
        raise typer.BadParameter(
            f"cannot tell the format from {output.name!r}: use one of the suffixes {known}, or --format"
        )
    return formats[output.suffix.lower()]
