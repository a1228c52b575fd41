"""A Debian with nothing but a package manager, systemd, Python and git, and how it is booted with systemd-nspawn.

It shares the network of this host, and is told how pip is configured here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SUITE = "bookworm"
PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv,git,ca-certificates,curl"
BOOT_SECONDS = 60.0
POLL_INTERVAL_SECONDS = 0.2
END_SECONDS = 30.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class RootError(RuntimeError):
    """The root cannot be made or booted."""


def make_root(cache: Path, target: Path) -> None:
    """Copy the bare Debian to `target`. It is made once, in `cache`, from the mirror that apt is configured to use."""
    bare = cache / SUITE
    if not bare.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = cache / f"{SUITE}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        _run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(unfinished), *_mirror())
        unfinished.rename(bare)
    _run("cp", "--archive", str(bare), str(target))
    (target / "etc/machine-id").unlink(missing_ok=True)
    _configure_pip(target)


def _mirror() -> list[str]:
    """The first mirror of apt's sources, if debootstrap is to use another than its own."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    return listed[:1]


def _configure_pip(root: Path) -> None:
    """Gives the root this host's configuration of pip, and the certificates that it trusts."""
    for folder in ("usr/local/share/ca-certificates", "etc/xdg/pip"):
        if (Path("/") / folder).is_dir():
            shutil.copytree(Path("/") / folder, root / folder, dirs_exist_ok=True, symlinks=True)
    if Path("/etc/pip.conf").exists():
        shutil.copy("/etc/pip.conf", root / "etc/pip.conf")
    _run("chroot", str(root), "update-ca-certificates")


class BootedRoot:
    """A root in which systemd runs."""

    def __init__(self, root: Path, leader: int) -> None:
        self.root = root
        self._leader = leader

    def run(self, command: str, *, check: bool = True, timeout: float = 400.0) -> subprocess.CompletedProcess[str]:
        """Run a line of shell as root. Raises CalledProcessError if `check`, TimeoutExpired."""
        environ = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"}
        pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_") and "/" not in value}
        arguments = ["nsenter", "--target", str(self._leader), "--all", "bash", "-c", command]
        return subprocess.run(
            arguments, env=environ | pip, capture_output=True, text=True, check=check, timeout=timeout
        )

    def read(self, command: str) -> str:
        """The output of a line of shell, without white space at its ends."""
        return self.run(command).stdout.strip()


@contextmanager
def booted(root: Path, log: Path) -> Iterator[BootedRoot]:
    """Boot the root for the time of the block; `log` takes its console. Raises RootError."""
    options = ["--register=no", "--keep-unit", "--boot", "--resolv-conf=copy-host", f"--directory={root}"]
    with log.open("wb") as console:
        container = subprocess.Popen(
            ["systemd-nspawn", *options], stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT
        )
    try:
        yield BootedRoot(root, _await_leader(container))
    finally:
        container.terminate()  # an orderly shutdown
        try:
            container.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            container.kill()
            container.wait()


def _await_leader(container: subprocess.Popen[bytes]) -> int:
    """The process id of the root's systemd, once it has started everything."""
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline and container.poll() is None:
        children = Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text(encoding="ascii").split()
        for child in map(int, children):
            state = ["nsenter", "--target", str(child), "--all", "systemctl", "is-system-running"]
            if subprocess.run(state, capture_output=True, text=True, check=False).stdout.strip() in (
                "running",
                "degraded",
            ):
                return child
        time.sleep(POLL_INTERVAL_SECONDS)
    raise RootError("the root does not boot: see its console's log")


def _run(*command: str) -> None:
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    if done.returncode:
        raise RootError(f"{command[0]} failed with exit code {done.returncode}")
