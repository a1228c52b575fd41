"""Builds the image of deploy/Containerfile on a bare Debian, runs it alone and by compose, and prints what it saw.

It needs the network, to install packages. The bare Debian is kept in a cache folder.
"""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import httpx
import typer

from balancer.host.processes import free_port
from balancer.runtime.repository import REPOSITORY
from scripts.deployment.bare_root import RootError, make_root
from scripts.deployment.compose_trial import ComposeTrial
from scripts.deployment.containers import IMAGE, Podman
from scripts.deployment.steady_load import KEY, Tally, bearer, in_flight, speak, until
from scripts.deployment.trial import Trial
from scripts.support.check import Check
from scripts.support.console import fail, report_progress, run_command
from scripts.support.markdown import machine, table
from scripts.support.servers import interrupt_on_signals

REQUESTS_AT_STOP = 8
READY_SECONDS = 90.0
TRIAL_SECONDS = 600.0


class OverdueError(RuntimeError):
    """The trial takes too long."""


class ContainerTrial(Trial):
    """The steps with one image, and what was seen at each."""

    def __init__(self, podman: Podman, folder: Path, revision: str) -> None:
        super().__init__()
        self._podman = podman
        self._folder = folder
        self._revision = revision
        self._port = free_port()
        self._url = f"http://127.0.0.1:{self._port}"

    def run(self) -> None:
        """Every step in turn. Raises CalledProcessError where a step cannot be taken."""
        for step in (self._build, self._serve, self._stop_at_once, self._secrets):
            self._take(step)

    def _options(self) -> list[str]:
        volumes = [f"--volume=chorus-{name}:/{name}" for name in ("data", "cache", "voices")]
        return [f"--env=CHORUS_PORT={self._port}", "--env=CHORUS_HOST=127.0.0.1", *volumes]

    def _build(self) -> None:
        """Building the image."""
        begun = time.monotonic()
        self._podman.build(REPOSITORY, self._revision)
        size = int(self._podman.read("image", "inspect", "--format={{.Size}}", IMAGE))
        self._see("podman build", f"{time.monotonic() - begun:.0f} s, {size / 1e6:.0f} MB with its base", True)

    def _serve(self) -> None:
        """Serving with a read-only root and no capabilities, and stopping with requests in flight."""
        begun = time.monotonic()
        with self._podman.container(*self._options()) as name:
            ready = until(self._ready, READY_SECONDS)
            self._see("ready", f"{time.monotonic() - begun:.1f} s after `podman run --read-only`", ready)
            with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as client:
                failure = speak(client, "The first words of this container.")
            self._see("speaks", failure or "yes", failure is None)
            user = self._podman.read("exec", name, "id", "-u")
            self._see("user", user, user != "0")
            written = self._podman.run("exec", name, "touch", "/opt/chorus/x", check=False)
            self._see("its root", (written.stderr.strip() or "writable")[-40:], written.returncode != 0)
            healthy = self._podman.run("healthcheck", "run", name, check=False).returncode
            self._see("health check", f"exit code {healthy}", healthy == 0)
            degraded = httpx.get(f"{self._url}/ready", trust_env=False).json()["degraded"]
            self._see("degraded", degraded or "nothing", not degraded)
            tally = Tally()
            with in_flight(self._url, REQUESTS_AT_STOP, tally):
                begun = time.monotonic()
                self._podman.run("stop", name)
            seconds = time.monotonic() - begun
            code = self._podman.read("inspect", "--format={{.State.ExitCode}}", name)
            clean = tally.answered == REQUESTS_AT_STOP and code == "0"
            self._see("podman stop", f"{tally.describe()}, {seconds:.1f} s, exit code {code}", clean)

    def _stop_at_once(self) -> None:
        """Stopping while it starts."""
        with self._podman.container(*self._options()) as name:
            begun = time.monotonic()
            self._podman.run("stop", name)
            seconds = time.monotonic() - begun
        self._see("podman stop during the start", f"{seconds:.1f} s", seconds < 10)

    def _secrets(self) -> None:
        """Reading an API key as a secret, and a log of JSON."""
        secret = self._folder / "key"
        secret.write_text(KEY, encoding="ascii")
        secret.chmod(0o444)
        mounted = f"--volume={secret}:/run/secrets/chorus_api_keys:ro"
        with self._podman.container(*self._options(), mounted, "--env=CHORUS_LOG_FORMAT=json") as name:
            until(self._ready, READY_SECONDS)
            path = f"{self._url}/v1/audio/voices"
            statuses = [httpx.get(path, headers=headers, trust_env=False).status_code for headers in ({}, bearer(KEY))]
            self._see("an API key as a secret: without, with", statuses, statuses == [401, 200])
            log = self._podman.run("logs", name)
        lines = (log.stdout + log.stderr).splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        self._see("lines of JSON in the log", f"{len(entries)} of {len(lines)}", len(entries) == len(lines) > 0)

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self._url}/ready", trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False


def main(
    *,
    cache: Annotated[Path, typer.Option(help="Folder that keeps the bare Debian, 430 MB.")] = Path(
        "/var/cache/chorus-trials"
    ),
    folder: Annotated[Path | None, typer.Option(help="Folder of the trial; default: a temporary one.")] = None,
) -> None:
    """Build an image of this checkout on a bare Debian, run it, alone and by deploy/compose.yaml, and print a table.

    Exit code: 0 all held, 1 something did not, 2 wrong usage. It takes ten minutes at most.
    """
    interrupt_on_signals()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chorus-container-", dir=folder) as name:
        podman = Podman(Path(name))
        revision = _revision()
        trials = ContainerTrial(podman, Path(name), revision), ComposeTrial(podman, Path(name), revision)
        checks = trials[0].checks
        try:
            with _within(TRIAL_SECONDS):
                report_progress("Making a bare Debian")
                make_root(cache, Path(name) / "root")
                podman.import_root(Path(name) / "root")
                for trial in trials:
                    checks = trial.checks
                    trial.run()
        except subprocess.CalledProcessError as error:
            checks.append(Check(str(error.cmd[-1]), f"{error}: {(error.stderr or '')[-2000:]}", holds=False))
        except (OverdueError, httpx.HTTPError) as error:
            checks.append(Check("the trial's end", repr(error), holds=False))
        except (RootError, subprocess.SubprocessError, OSError) as error:
            fail("scripts/try_container", error)
        finally:
            podman.remove_storage()
    typer.echo(f"{machine()}\n{time.monotonic() - begun:.0f} s\n")
    checks = [check for trial in trials for check in trial.checks]
    rows = [(check.name, check.value, "holds" if check.holds else "DOES NOT HOLD") for check in checks]
    typer.echo(table(["what", "seen", ""], rows))
    if not all(check.holds for check in checks):
        raise typer.Exit(1)


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raises OverdueError in the block if it takes longer."""

    def end(*_: object) -> None:
        raise OverdueError(f"not reached within {seconds:.0f} s")

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _revision() -> str:
    command = ["git", "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    run_command(main, "scripts/try_container")
