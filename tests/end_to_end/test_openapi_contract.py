"""Requests made up from the API's own description: no answer is a server error, or of another shape than it says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Chorus, start_chorus
from tests.support.harness import ROOT, environment

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"

MAX_CHARACTERS = 20
"""Of a text, be it a job's: the longest that is allowed is among those made up, and one that is longer. Few,
for they are spoken some hundred times; the description's example has 18."""


@pytest.fixture(scope="module")
def chorus() -> Iterator[Chorus]:
    limit = MAX_CHARACTERS
    with start_chorus("--workers", "1", max_text_characters=limit, max_job_text_characters=limit) as running:
        yield running


def test_answers_are_as_described(chorus: Chorus, tmp_path: Path) -> None:
    schemathesis = Path(sys.executable).with_name("schemathesis")
    command = [
        str(schemathesis),
        "run",
        f"{chorus.url}/openapi.json",
        f"--checks={CHECKS}",
        "--max-examples=25",
        "--seed=1",
        "--phases=examples,coverage,fuzzing",
        "--request-timeout=60",
        "--suppress-health-check=all",
    ]
    variables = environment() | {"SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
