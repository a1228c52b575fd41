"""podman as the trial uses it: with storage of its own, and nothing that needs systemd on this host."""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

BASE = "localhost/chorus-base"
IMAGE = "localhost/chorus"
PROJECT = "trial"
MAX_FILES = 65_536
MAX_PROCESSES = 4096
BUILD_SECONDS = 450.0
MOUNTED_FOR_PIP = ("/etc/ssl/certs", "/etc/pip.conf", "/etc/xdg/pip")
"""How pip is configured on this host."""
PODMAN_COMPOSE = "podman-compose>=1.5"
"""Older ones, such as Debian 12's, know neither a container's address nor the time that it has to stop."""


class Podman:
    """podman with its storage in `folder`, whose path may have 46 characters: podman allows few to its run root."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(
        self, *arguments: str | Path, check: bool = True, timeout: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of podman. Raises CalledProcessError if `check`, TimeoutExpired."""
        return subprocess.run(
            [*self._command(), *arguments], capture_output=True, text=True, check=check, timeout=timeout
        )

    def read(self, *arguments: str | Path) -> str:
        """The output of a command, without white space at its ends."""
        return self.run(*arguments).stdout.strip()

    def import_root(self, root: Path) -> None:
        """Make an image, BASE, of the files in a folder."""
        with subprocess.Popen(["tar", "--directory", root, "--create", "."], stdout=subprocess.PIPE) as tar:
            subprocess.run([*self._command(), "import", "-", BASE], stdin=tar.stdout, capture_output=True, check=True)

    def build(self, context: Path, revision: str) -> None:
        """Build IMAGE on BASE. Raises CalledProcessError, TimeoutExpired."""
        arguments = [f"--build-arg=BASE={BASE}", f"--build-arg=REVISION={revision}", f"--tag={IMAGE}"]
        options = [*self.build_options(), *arguments, f"--file={context / 'deploy/Containerfile'}"]
        self.run("build", *options, context, timeout=BUILD_SECONDS)

    def build_text(self, name: str, text: str) -> None:
        """Build an image of this text of a Containerfile. Raises CalledProcessError, TimeoutExpired."""
        context = self._folder / "context"
        context.mkdir(exist_ok=True)
        (context / "Containerfile").write_text(text, encoding="ascii")
        self.run("build", *self.build_options(), f"--tag={name}", context, timeout=BUILD_SECONDS)

    @staticmethod
    def build_options() -> list[str]:
        """Options of `podman build`."""
        mounts = [f"--volume={path}:{path}:ro" for path in MOUNTED_FOR_PIP if Path(path).exists()]
        return ["--format=docker", "--isolation=chroot", "--network=host", *mounts]

    @staticmethod
    def limits() -> list[str]:
        """Options of `podman run`: limits that this host allows."""
        files = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], MAX_FILES)
        return [f"--ulimit=nofile={files}:{files}", f"--ulimit=nproc={MAX_PROCESSES}:{MAX_PROCESSES}"]

    def write_program(self) -> Path:
        """A program that runs podman with this storage, for other programs; gives its path."""
        program = self._folder / "podman"
        program.write_text(f'#!/bin/sh\nexec {shlex.join(self._command())} "$@"\n', encoding="utf-8")
        program.chmod(0o755)
        return program

    @contextmanager
    def container(self, *options: str, arguments: Sequence[str] = ()) -> Iterator[str]:
        """The id of a container of IMAGE as a careful operator runs it; it is removed at the end of the block."""
        careful = ["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--stop-timeout=75"]
        command = ["run", "--detach", "--network=host", *self.limits(), *careful, *options, IMAGE, *arguments]
        name = self.read(*command).splitlines()[-1]
        try:
            yield name
        finally:
            self.run("rm", "--force", "--time=1", name, check=False)

    def remove_storage(self) -> None:
        """Remove every container, network, image and volume, and the storage."""
        for command in (
            ("rm", "--all", "--force", "--time=1"),
            ("network", "prune", "--force"),
            ("rmi", "--all", "--force"),
            ("volume", "rm", "--all", "--force"),
        ):
            self.run(*command, check=False)
        for part in ("storage", "run", "networks"):
            shutil.rmtree(self._folder / part, ignore_errors=True)

    def _command(self) -> list[str]:
        storage = [f"--root={self._folder / 'storage'}", f"--runroot={self._folder / 'run'}"]
        networks = [f"--network-config-dir={self._folder / 'networks'}", "--network-backend=netavark"]
        return ["podman", *storage, *networks, "--runtime=runc", "--cgroup-manager=cgroupfs", "--log-level=fatal"]


class Compose:
    """podman-compose with a file of services. `environment` has the variables that it may use."""

    def __init__(self, podman: Podman, folder: Path, file: Path, environment: Mapping[str, str]) -> None:
        self._podman = podman
        self._programs = folder / "podman-compose"
        self._file = file
        self._environment = dict(environment)

    def install(self) -> str:
        """Install podman-compose in a folder of its own; gives its version. Raises CalledProcessError."""
        python = self._programs / "bin" / "python"
        for command in (
            [sys.executable, "-m", "venv", str(self._programs)],
            [str(python), "-m", "pip", "install", "--quiet", "--no-compile", "--no-input", PODMAN_COMPOSE],
        ):
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=BUILD_SECONDS)
        code = "from importlib.metadata import version; print(version('podman-compose'))"
        return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()

    def run(self, *arguments: str, timeout: float = BUILD_SECONDS) -> None:
        """Run a command of podman-compose. Raises CalledProcessError, TimeoutExpired."""
        options = [
            f"--podman-path={self._podman.write_program()}",
            f"--podman-build-args={shlex.join(self._podman.build_options())}",
            f"--podman-run-args={shlex.join(self._podman.limits())}",
            f"--project-name={PROJECT}",
            f"--file={self._file}",
        ]
        subprocess.run(
            [self._programs / "bin" / "podman-compose", *options, *arguments],
            env=os.environ | self._environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=timeout,
        )

    @staticmethod
    def container(service: str) -> str:
        """The name of a service's container."""
        return f"{PROJECT}_{service}_1"
