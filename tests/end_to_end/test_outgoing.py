"""Nothing leaves the host but what the operator asked for: from the start to the end of a server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from balancer.host.processes import free_port
from tests.end_to_end.conftest import CHORUS
from tests.support.harness import ROOT, environment

NAMESPACES = ["unshare", "--user", "--map-root-user", "--net", "--mount"]


def may_isolate() -> bool:
    return (
        shutil.which("ip") is not None
        and subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(not may_isolate(), reason="this host allows no network namespaces, or has no `ip`")
def test_no_process_seeks_another_host_or_writes_into_home(tmp_path: Path) -> None:
    port = str(free_port())
    env = environment(run_dir=tmp_path / "r", data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    server = [str(CHORUS), "serve", "--workers", "1", "--port", port]
    isolated = [*NAMESPACES, "--", sys.executable, "-m", "tests.support.isolated_network", port, *server]
    done = subprocess.run(isolated, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen == {"control": ["example.invalid"], "status": [200], "names": [], "packets": [0], "home": []}
