"""podman as the trial uses it: with storage of its own, and nothing that needs systemd on this host."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

BASE = "localhost/chorus-base"
IMAGE = "localhost/chorus"
MAX_FILES = 65_536
MAX_PROCESSES = 4096
MOUNTED_FOR_PIP = ("/etc/ssl/certs", "/etc/pip.conf", "/etc/xdg/pip")
"""How pip is configured on this host."""


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
        mounts = [f"--volume={path}:{path}:ro" for path in MOUNTED_FOR_PIP if Path(path).exists()]
        arguments = [f"--build-arg=BASE={BASE}", f"--build-arg=REVISION={revision}", *mounts, f"--tag={IMAGE}"]
        options = ["--format=docker", "--isolation=chroot", "--network=host", *arguments]
        self.run("build", *options, f"--file={context / 'deploy/Containerfile'}", context, timeout=450)

    @contextmanager
    def container(self, *options: str, arguments: Sequence[str] = ()) -> Iterator[str]:
        """The id of a container of IMAGE as a careful operator runs it; it is removed at the end of the block."""
        files = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], MAX_FILES)
        limits = [f"--ulimit=nofile={files}:{files}", f"--ulimit=nproc={MAX_PROCESSES}:{MAX_PROCESSES}"]
        careful = ["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--stop-timeout=75"]
        command = ["run", "--detach", "--network=host", *limits, *careful, *options, IMAGE, *arguments]
        name = self.read(*command).splitlines()[-1]
        try:
            yield name
        finally:
            self.run("rm", "--force", "--time=1", name, check=False)

    def remove_storage(self) -> None:
        """Remove every image and volume, and the storage."""
        for command in (("rm", "--all", "--force"), ("rmi", "--all", "--force"), ("volume", "rm", "--all", "--force")):
            self.run(*command, check=False)
        for part in ("storage", "run"):
            shutil.rmtree(self._folder / part, ignore_errors=True)

    def _command(self) -> list[str]:
        storage = [f"--root={self._folder / 'storage'}", f"--runroot={self._folder / 'run'}"]
        return ["podman", *storage, "--runtime=runc", "--cgroup-manager=cgroupfs", "--log-level=fatal"]
