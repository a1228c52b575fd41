"""Has clients of others hear streams of a server of its own, and prints what worked.

It needs the network, to install the clients.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import httpx
import typer

from balancer.load.texts import SENTENCES
from scripts.clients.installation import Client, Installation, InstallationError, install
from scripts.support.console import fail, report_progress, run_command
from scripts.support.markdown import machine, table
from scripts.support.servers import Server, ServerError, interrupt_on_signals, start_chorus

CLIENTS = (
    Client("openai, Python", "openai_python.py", "openai"),
    Client("openai, Node", "openai_node.mjs", "openai", npm="openai"),
    Client("LiveKit, openai.TTS", "livekit_tts.py", "livekit-plugins-openai", pip="livekit-plugins-openai"),
    Client("Pipecat, OpenAITTSService", "pipecat_tts.py", "pipecat-ai", pip="pipecat-ai[openai]"),
    Client("curl -N, ffmpeg", "curl_ffmpeg.py", ""),
)
TEXT = "The stream begins here. " + " ".join(SENTENCES)
LENGTH_TOLERANCE_SECONDS = 0.25
"""Codecs and players add frames at the ends; a client's own resampler may take some."""
PROGRAM_SECONDS = 300.0


@dataclass(frozen=True)
class Case:
    """What one client heard of one stream. Times are in seconds from its request."""

    client: str
    name: str
    first: float = 0.0
    end: float = 0.0
    seconds: float | None = 0.0
    """Length of the audio; None: the client does not decode it."""
    error: str = ""

    def verdict(self, expected: float) -> str:
        """Whether all of the audio came, and began to come before it was complete."""
        if self.error:
            return self.error
        if self.seconds is not None and abs(self.seconds - expected) > LENGTH_TOLERANCE_SECONDS:
            return f"{self.seconds:.2f} s of audio instead of {expected:.2f} s"
        return "streamed" if self.first < self.end / 2 else "whole at the end"


def main(
    *,
    only: Annotated[str, typer.Option(help="Only clients whose name contains this.")] = "",
    workers: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Install clients in a temporary folder, have each hear the same text, and print a table.

    Exit code: 0 every client heard all of it as a stream, 1 one did not, 2 wrong usage.
    """
    interrupt_on_signals()
    chosen = [client for client in CLIENTS if only.lower() in client.name.lower()]
    with tempfile.TemporaryDirectory(prefix="chorus-clients-") as name:
        try:
            with start_chorus(
                "chorus", engine="hibari", workers=workers, folder=Path(name), settings={"cache_mib": 0}
            ) as server:
                expected = _expected_seconds(server)
                rows = [row for client in chosen for row in _rows(client, server, Path(name), expected)]
        except ServerError as error:
            fail("scripts/try_clients", error)
    typer.echo(f"{machine()}\n{len(TEXT)} characters, {expected:.1f} s of audio\n")
    typer.echo(table(["client", "installed", "stream", "first sound, s", "end, s", "result"], rows))
    if any(row[-1] != "streamed" for row in rows):
        raise typer.Exit(1)


def _expected_seconds(server: Server) -> float:
    response = httpx.post(f"{server.url}/tts", json={"text": TEXT, "format": "pcm"}, timeout=None, trust_env=False)
    return float(response.raise_for_status().headers["X-Audio-Seconds"])


def _rows(client: Client, server: Server, folder: Path, expected: float) -> Iterator[tuple[str, ...]]:
    report_progress(f"{client.name}: installing")
    place = folder / client.program.partition(".")[0]
    place.mkdir()
    try:
        installed = install(client, place)
    except InstallationError as error:
        yield client.name, "-", "-", "-", "-", f"not installed: {error}"
        return
    size = f"{installed.mib:.0f} MiB, {installed.seconds:.0f} s" if installed.mib else "-"
    report_progress(f"{client.name}: hearing")
    for case in hear(client, installed, server.url):
        first, end = ("-", "-") if case.error else (f"{case.first:.2f}", f"{case.end:.2f}")
        yield f"{client.name} {installed.version}".strip(), size, case.name, first, end, case.verdict(expected)


def hear(client: Client, installed: Installation, url: str) -> Sequence[Case]:
    """Run a client's program, and read what it heard: a JSON object in a line for each stream."""
    try:
        done = subprocess.run(
            [*installed.command, url, TEXT], capture_output=True, text=True, check=False, timeout=PROGRAM_SECONDS
        )
    except subprocess.TimeoutExpired:
        return [Case(client.name, "-", error=f"did not end within {PROGRAM_SECONDS:g} s")]
    cases = [Case(client.name, **json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        cases.append(Case(client.name, "-", error=last))
    return cases


if __name__ == "__main__":
    run_command(main, "scripts/try_clients")
