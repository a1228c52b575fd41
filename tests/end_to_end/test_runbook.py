"""The commands of docs/operations.md that say that they are for a running server, run as they stand."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.end_to_end.conftest import CHORUS, Chorus, start_chorus
from tests.support.harness import ROOT, TIMEOUT, environment

RUNBOOK = (ROOT / "docs" / "operations.md").read_text().partition("\n## Behind a proxy")[0]
BLOCKS = re.findall(r"```sh\n# on a running server\n(.*?)```", RUNBOOK, re.DOTALL)


class Host(NamedTuple):
    """A running server, and the environment of an operator on its host."""

    chorus: Chorus
    environ: dict[str, str]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("runbook")
    settings: dict[str, Any] = {"data_dir": folder / "data", "cache_dir": folder / "cache", "cache_mib": 64}
    with start_chorus("--workers", "1", **settings) as chorus:
        environ = environment(**settings, run_dir=chorus.run_dir)
        yield Host(chorus, environ | {"PATH": f"{CHORUS.parent}:{environ['PATH']}", "CHORUS_URL": chorus.url})


def test_every_step_has_a_command() -> None:
    steps = re.split(r"^### ", RUNBOOK, flags=re.MULTILINE)[1:]
    assert [step.split("\n")[0] for step in steps if "```sh" not in step] == ["Processes"]


@pytest.mark.parametrize("block", BLOCKS, ids=[block.split("\n")[0] for block in BLOCKS])
def test_the_commands_for_a_running_server_work(block: str, host: Host) -> None:
    commands = block.replace("localhost:5000", host.chorus.url.removeprefix("http://"))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=ROOT,
        env=host.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT * 8,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("file", sorted(set(re.findall(r"(?:scripts|deploy)/[\w.]+", RUNBOOK))))
def test_the_files_that_it_names_exist(file: str) -> None:
    assert (ROOT / file).exists()
