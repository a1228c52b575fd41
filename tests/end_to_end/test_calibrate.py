"""`chorus calibrate` as an operator meets it, and what `chorus layout` and `chorus serve` make of what it kept."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from balancer.host.calibration import Calibration, Objective
from scripts.support.recogniser import audio_seconds
from tests.end_to_end.conftest import CHORUS, Home, start_model, synthesize
from tests.support.checkpoint_files import write
from tests.support.cli import clean_shell, invoke
from tests.support.harness import ROOT, TIMEOUT, environment, wait_until
from tests.support.shared_folder import with_kernels
from tests.support.tiny_models import TinyCheckpoint
from worker.checkpoints.catalogue import CHECKPOINTS

TURBO = "--engine", "turbo"


@dataclass(frozen=True)
class Place:
    """Folders of a calibration's own."""

    cache: Path
    temporary: Path

    def environment(self, **settings: object) -> dict[str, str]:
        own = {"cache_dir": self.cache} | settings
        return environment(**own) | {"TMPDIR": str(self.temporary), "COLUMNS": "200"}

    def run(self, *words: object, **settings: object) -> subprocess.CompletedProcess[str]:
        """The command `chorus`, to its end."""
        command = [str(CHORUS), *map(str, words)]
        variables = self.environment(**settings)
        return subprocess.run(command, cwd=ROOT, env=variables, check=False, capture_output=True, text=True)

    def kept(self) -> list[Calibration]:
        files = (self.cache / "calibrations").glob("*")
        return [Calibration.model_validate_json(file.read_bytes()) for file in files]


@pytest.fixture
def place(run_dir: Path, tmp_path: Path) -> Iterator[Place]:
    (run_dir / "t").mkdir()
    yield Place(with_kernels(tmp_path / "cache"), run_dir / "t")
    assert list((run_dir / "t").iterdir()) == [], "nothing temporary is left"


@pytest.mark.usefixtures("one_core")
def test_shapes_are_measured_and_served(place: Place, tiny_checkpoint: TinyCheckpoint, home: Home) -> None:
    model = *TURBO, "--model-dir", tiny_checkpoint("turbo")
    done = place.run("calibrate", *model, "--for", "latency", "--slots", "1,3", "--utterances", "1")
    assert done.returncode == 0, done.stderr
    assert "Engine turbo, batched, fp32, 1 core, for latency" in done.stdout
    (calibration,) = place.kept()
    assert calibration.objective is Objective.LATENCY
    found = {one.slots: one for one in calibration.measurements}
    assert found.keys() == {1, 3}
    for slots, one in found.items():
        assert (one.threads, one.workers, one.utterances) == (1, 1, slots)
        assert one.audio_seconds > slots
        assert one.first_sound_seconds is not None
        assert f": {one}\n" in done.stderr

    best = calibration.ranked[0]
    layout = place.run("layout", *model)
    chosen = f"{best.slots} slot{'s' * (best.slots > 1)} per worker"
    assert f"{chosen}, from this host's calibration: {best}." in layout.stdout
    # Which of the two is best is up to the machine: what was measured is made to say three.
    others = [one.model_copy(update={"first_sound_seconds": 1e3}) for one in calibration.measurements if one.slots == 1]
    (file,) = (place.cache / "calibrations").glob("*")
    file.write_text(calibration.model_copy(update={"measurements": (found[3], *others)}).model_dump_json())
    mine = Home(home.voices, place.cache)
    with start_model("turbo", mine, model_dir=tiny_checkpoint("turbo")) as chorus:
        assert [state.slots for state in chorus.states()] == [3]
        assert b"from this host's calibration" in chorus.log.read_bytes()
        assert audio_seconds(synthesize(chorus)) > 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGHUP, 130)])
def test_interrupted_it_leaves_nothing_behind(place: Place, number: int, code: int) -> None:
    command = [str(CHORUS), "calibrate", "--utterances", "10000", "--seconds", "10000"]
    with subprocess.Popen(command, cwd=ROOT, env=place.environment(), stderr=subprocess.PIPE, text=True) as process:
        workers = await_workers(process)
        process.send_signal(number)
        _, said = process.communicate(timeout=TIMEOUT)
    assert process.returncode == code
    assert said == "interrupted: nothing was saved\n"
    assert [worker for worker in workers if worker.is_running()] == []
    assert not place.cache.joinpath("calibrations").exists()


def test_killed_it_takes_its_workers_along(run_dir: Path, tmp_path: Path) -> None:
    place = Place(tmp_path, run_dir)
    command = [str(CHORUS), "calibrate", "--utterances", "10000", "--seconds", "10000"]
    with subprocess.Popen(command, cwd=ROOT, env=place.environment(), stderr=subprocess.DEVNULL) as process:
        workers = await_workers(process)
        process.kill()
    wait_until(lambda: not any(alive(worker) for worker in workers))


def await_workers(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The workers it has started, once they listen."""
    me = psutil.Process(process.pid)

    def workers() -> list[psutil.Process]:
        found = []
        for child in me.children():
            with suppress(psutil.NoSuchProcess):  # one that ends at this moment
                if "worker" in child.cmdline() and listens(child):
                    found.append(child)
        return found

    wait_until(lambda: process.poll() is not None or bool(workers()))
    assert process.poll() is None
    return workers()


def listens(process: psutil.Process) -> bool:
    words = process.cmdline()
    socket = Path(words[words.index("--run-dir") + 1]) / f"worker-{words[words.index('--index') + 1]}.sock"
    return socket.exists()


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended between the two
        return False


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--slots", "2"], 1, "chorus: engine hibari synthesizes one utterance at a time; unset CHORUS_SLOTS"),
        (["--precision", "int8"], 1, "chorus: engine hibari computes in fp32 only; unset CHORUS_PRECISION"),
        (["--engine", "nope"], 1, "chorus: CHORUS_ENGINE: there is no such engine"),
        (
            [*TURBO, "--model-dir", "nowhere"],
            1,
            f"chorus: the folder of turbo's weights, {ROOT}/nowhere, does not exist",
        ),
        (["--threads", "100000"], 1, "chorus: a worker can have at most "),
        (["--slots", "1,x"], 2, "--slots '1,x' is not a list of positive numbers such as 1,2,4"),
        (["--threads", "0"], 2, "--threads '0' is not a list of positive numbers such as 1,2,4"),
        (["--utterances", "0"], 2, "--utterances"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_starts(
    place: Place, monkeypatch: pytest.MonkeyPatch, options: list[str], code: int, message: str
) -> None:
    clean_shell(monkeypatch, columns=200)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(tempfile, "tempdir", str(place.temporary))
    before = psutil.Process().children(recursive=True)
    done = invoke("calibrate", *options, **place.environment())
    assert psutil.Process().children(recursive=True) == before
    assert done.exit_code == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not place.cache.joinpath("calibrations").exists()


@pytest.mark.usefixtures("one_core")
def test_weights_that_do_not_load_are_told(place: Place, tmp_path: Path) -> None:
    folder = write(CHECKPOINTS["turbo"], tmp_path / "whole-files-of-nothing")
    done = place.run("calibrate", *TURBO, "--model-dir", folder, "--threads", "1", "--slots", "1")
    assert done.returncode == 1
    assert f"cannot load its model: the checkpoint in {folder} does not load as turbo: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not place.cache.joinpath("calibrations").exists()
