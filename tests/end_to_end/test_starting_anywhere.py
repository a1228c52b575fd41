"""A server starts as containers run it: a user id without an entry in the password file, no HOME, a read-only root."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import httpx
import pytest

from balancer.host.processes import await_ready, free_port, running
from tests.end_to_end.conftest import CHORUS, STOP_SECONDS
from tests.support.harness import ROOT, TIMEOUT

USER = "12345"

READ_ONLY = (
    f'mount --bind "$1" "$1" && mount -o remount,bind,ro / && shift && exec unshare --user --map-user={USER} -- "$@"'
)
"""For a shell: all but the folder in its first argument becomes read-only; runs the rest as a user without a name."""


def in_container(writable: Path, *command: str) -> list[str]:
    shell = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", READ_ONLY, "bash", str(writable)]
    return [*shell, "env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin", f"TMPDIR={writable}", *command]


def may_isolate() -> bool:
    if shutil.which("unshare") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(in_container(Path(folder), "true"), capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not may_isolate(), reason="this host allows no user namespaces")
def test_a_user_without_name_and_home_on_a_read_only_root(run_dir: Path) -> None:
    port = free_port()
    command = in_container(run_dir, str(CHORUS), "serve", "--workers", "1", "--port", str(port))
    log = run_dir / "log"
    with running(command, log=log, cwd=ROOT) as server:
        await_ready(server, lambda: b"Chorus is ready" in log.read_bytes(), timeout=TIMEOUT * 4)
        url = f"http://127.0.0.1:{port}"
        assert httpx.post(f"{url}/tts", json={"text": "Hello."}, timeout=TIMEOUT).status_code == 200
        assert httpx.post(f"{url}/queue", json={"text": "Hello."}, timeout=TIMEOUT).status_code == 202
        server.terminate()
        assert server.wait(STOP_SECONDS) == 0
    assert (run_dir / f"chorus-{USER}-home" / ".local" / "share" / "chorus" / "jobs").is_dir()
