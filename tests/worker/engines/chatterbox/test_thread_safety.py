"""Why the model has one thread: two threads that drive it at once mix their utterances; the runner prevents that."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.harness import ROOT, environment
from tests.support.recordings import record, speech
from tests.support.shared_folder import with_kernels
from tests.support.tiny_models import TinyCheckpoint


@pytest.mark.parametrize("engine", ["turbo"])
def test_two_threads_corrupt_audio_and_the_runner_does_not(
    tiny_checkpoint: TinyCheckpoint, tmp_path: Path, engine: str
) -> None:
    for name, description in (("default", 'engine = "*"'), ("ada", 'reference = "clip.wav"\nsynthetic = true')):
        (tmp_path / "voices" / name).mkdir(parents=True)
        (tmp_path / "voices" / name / "voice.toml").write_text(f'name = "{name}"\n{description}\n')
    record(tmp_path / "voices" / "ada" / "clip.wav", speech(5.2))
    program = [sys.executable, "tests/support/two_threads.py", engine, str(tiny_checkpoint(engine))]
    done = subprocess.run(
        [*program, str(with_kernels(tmp_path / "cache")), str(tmp_path / "voices")],
        cwd=ROOT,
        env=environment() | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["serial"], "the serial runs differ"
    assert report["distinct"], "utterances have equal audio"
    assert report["unguarded_differed_in_round"] is not None, "two threads gave the serial audio"
    assert report["guarded"]
    assert report["refusals"] > 0
