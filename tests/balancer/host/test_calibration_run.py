"""Measurements of real workers with the embedded voice: their results, and that no process and no file is left."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from balancer.host.calibration_run import MIN_SECONDS, TEXTS, CalibrationRunError, RunLimits, measure_layout
from balancer.host.layout import Layout
from balancer.settings.settings import Settings
from worker.cards import CARDS

CPUS = sorted(os.sched_getaffinity(0))
TWO = Layout(((CPUS[0],), (CPUS[-1],)), 1, 1, ())
FOREVER = 1e9


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither a process nor a file; `tmp_path` is not affected."""
    monkeypatch.setattr(tempfile, "tempdir", str(run_dir))
    yield
    assert started() == []
    assert list(run_dir.iterdir()) == []


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load({}, cache_dir=tmp_path)


def started() -> list[psutil.Process]:
    workers = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.ZombieProcess, psutil.NoSuchProcess):  # it has just ended
            if "worker" in child.cmdline():
                workers.append(child)
    return workers


@pytest.mark.parametrize(
    ("limits", "slots", "begun", "elapsed", "reached"),
    [
        (RunLimits(3, 60), 1, 2, 0.0, False),
        (RunLimits(3, 60), 1, 3, 0.0, True),
        (RunLimits(3, 60), 8, 7, 0.0, False),  # every slot is used
        (RunLimits(3, 60), 8, 8, 0.0, True),
        (RunLimits(3, 60), 1, 1, 61.0, True),
        (RunLimits(3, 0), 1, 0, 1.0, False),  # one is always synthesized
        (RunLimits(3, 0), 1, 1, 1.0, True),
        (RunLimits(None, 60), 1, 4, MIN_SECONDS - 1, False),
        (RunLimits(None, 60), 1, 4, MIN_SECONDS, True),
        (RunLimits(None, 60), 1, 3, MIN_SECONDS, False),
        (RunLimits(None, 60), 8, 15, MIN_SECONDS, False),
        (RunLimits(None, 60), 8, 16, MIN_SECONDS, True),
        (RunLimits(None, 60), 8, 15, 61.0, True),
    ],
)
def test_when_a_worker_starts_no_more(limits: RunLimits, slots: int, begun: int, elapsed: float, reached: bool) -> None:
    assert limits.reached(slots, begun, elapsed) is reached


def test_the_texts_differ_and_have_similar_lengths() -> None:
    assert len(set(TEXTS)) == len(TEXTS)
    seconds = [len(text) * CARDS["turbo"].seconds_per_character for text in TEXTS]
    assert 3 < min(seconds) < max(seconds) < 5


def test_all_workers_are_measured_at_once(settings: Settings) -> None:
    running = []
    measured = measure_layout(settings, TWO, RunLimits(3, FOREVER), lambda: running.append(len(started())))
    assert running == [2] * 6, "both workers run until the end"
    assert (measured.threads, measured.slots, measured.workers, measured.utterances) == (1, 1, 2, 6)
    assert 6 * 2 < measured.audio_seconds < 6 * 8
    assert 0 < measured.answer_seconds <= measured.seconds
    assert measured.speed > 1
    assert 64 * 2**20 < measured.worker_bytes < CARDS["hibari"].resident_bytes


def test_the_first_sound_is_measured_before_everything_else(settings: Settings) -> None:
    one = Layout((tuple(CPUS),), 1, 1, ())
    measured = measure_layout(settings, one, RunLimits(1, FOREVER, first_sounds=3), lambda: None)
    assert measured.utterances == 1
    assert measured.first_sound_seconds is not None
    assert 0 < measured.first_sound_seconds < 60
    assert measure_layout(settings, one, RunLimits(1, FOREVER), lambda: None).first_sound_seconds is None


def test_a_worker_that_dies_ends_the_run(settings: Settings) -> None:
    def kill() -> None:
        for worker in started():
            worker.kill()

    with pytest.raises(CalibrationRunError, match=r"worker \d did not synthesize '"):
        measure_layout(settings, TWO, RunLimits(100, FOREVER), kill)


def test_the_log_of_a_worker_that_ends_at_once_is_quoted(settings: Settings) -> None:
    beyond = Layout(((max(CPUS) + 1,),), 1, 1, ())
    with pytest.raises(
        CalibrationRunError, match=r"worker 0 did not start: it ended with 1; the end of its log:\n.*cannot run on"
    ):
        measure_layout(settings, beyond, RunLimits(1, FOREVER), lambda: None)


def test_a_model_that_does_not_load_is_reported(settings: Settings, tmp_path: Path) -> None:
    voices = tmp_path / "voices"
    voices.mkdir()
    with pytest.raises(CalibrationRunError, match=r"worker \d cannot load its model: .*there is no voice 'default'"):
        measure_layout(settings.updated(voices_dir=voices), TWO, RunLimits(1, FOREVER), lambda: None)


def test_an_interruption_ends_the_workers(settings: Settings) -> None:
    with pytest.raises(KeyboardInterrupt):
        measure_layout(settings, TWO, RunLimits(100, FOREVER), lambda: signal.raise_signal(signal.SIGINT))
