"""Installs a client in a folder of its own, with its ordinary package manager."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import monotonic

PROGRAMS = Path(__file__).parent / "programs"
INSTALL_SECONDS = 600.0


class InstallationError(Exception):
    """A client could not be installed; the message says why."""


@dataclass(frozen=True)
class Client:
    """A client and its program. Without `pip` and `npm`, the program runs in this project's own environment."""

    name: str
    program: str
    package: str
    """The package whose version is reported; empty: none."""
    pip: str = ""
    """What pip installs."""
    npm: str = ""
    """What npm installs."""


@dataclass(frozen=True)
class Installation:
    """An installed client."""

    command: Sequence[str | Path]
    """Runs its program, with the program's arguments behind it."""
    version: str
    mib: float = 0.0
    seconds: float = 0.0


def install(client: Client, folder: Path) -> Installation:
    """Install a client below `folder`, which has to exist. Raises InstallationError."""
    began = monotonic()
    program = PROGRAMS / client.program
    if client.npm:
        if shutil.which("npm") is None:
            raise InstallationError("npm is not installed")
        _run(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), client.npm])
        manifest = json.loads((folder / "node_modules" / client.package / "package.json").read_text(encoding="utf-8"))
        # Node looks for packages beside the program.
        command: list[str | Path] = ["node", shutil.copy(program, folder)]
        return Installation(command, str(manifest["version"]), _mib(folder), monotonic() - began)
    if client.pip:
        _run([sys.executable, "-m", "venv", str(folder)])
        before, python = _mib(folder), folder / "bin" / "python"
        _run([str(python), "-m", "pip", "install", "--quiet", "--no-compile", "--no-input", client.pip])
        code = f"from importlib.metadata import version; print(version({client.package!r}))"
        found = _run([str(python), "-c", code]).strip()
        return Installation([python, program], found, _mib(folder) - before, monotonic() - began)
    return Installation([sys.executable, program], version(client.package) if client.package else "")


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise InstallationError(f"{command[0]} did not end within {INSTALL_SECONDS:g} s") from error
    except subprocess.CalledProcessError as error:
        raise InstallationError((error.stderr.strip().splitlines() or [f"{command[0]} failed"])[-1]) from error
    return done.stdout


def _mib(folder: Path) -> float:
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20
