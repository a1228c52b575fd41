"""Workers die, and no client loses a word, unless no worker is left."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from scripts.support.recogniser import word_error_rate
from tests.end_to_end.conftest import Chorus, start_chorus
from tests.support.audio_files import last_seconds
from tests.support.harness import TIMEOUT, wait_until

LAST_WORDS = "Please close the door behind you."
ONE_UTTERANCE = "The quick brown fox jumps over the lazy dog near the river bank, " * 5 + LAST_WORDS
"""One sentence, as long as the engine speaks in one utterance."""
SENTENCES = 60
LONG_TEXT = "The quick brown fox jumps over the lazy dog near the river bank. " * SENTENCES + LAST_WORDS


@pytest.fixture(scope="module")
def chorus() -> Iterator[Chorus]:
    # A stopped worker is not killed as unresponsive before its utterance has run elsewhere, however slow the host is.
    with start_chorus("--workers", "2", recovery_seconds=10, unresponsive_seconds=120) as running:
        yield running


def speak(chorus: Chorus, text: str) -> httpx.Response:
    return httpx.post(f"{chorus.url}/tts", json={"text": text, "seed": 7}, timeout=120)


def await_busy(chorus: Chorus) -> int:
    """The process id of a worker that speaks, once there is one."""
    busy: list[int] = []

    def found() -> bool:
        busy.extend(state.pid for state in chorus.states() if state.in_flight)
        return bool(busy)

    wait_until(found)
    return busy[0]


def test_a_worker_killed_in_mid_utterance_costs_its_client_only_time(chorus: Chorus) -> None:
    whole = speak(chorus, ONE_UTTERANCE).raise_for_status().content
    chorus.await_ready(2)
    before = {worker["pid"] for worker in chorus.workers()}
    retries = chorus.metric("chorus_retries_total")

    with ThreadPoolExecutor(1) as client:
        answer = client.submit(speak, chorus, ONE_UTTERANCE)
        killed = await_busy(chorus)
        os.kill(killed, signal.SIGKILL)
        assert not answer.done(), "the utterance was over before its worker was killed"
        audio = answer.result().raise_for_status().content

    assert audio == whole
    assert word_error_rate(LAST_WORDS, last_seconds(audio, 2.2)) <= 0.2
    assert chorus.metric("chorus_retries_total") == retries + 1
    chorus.await_ready(2)
    after = {worker["pid"] for worker in chorus.workers()}
    assert killed not in after
    assert len(after - before) == 1, "supervisord has started one new worker"
    assert speak(chorus, "And it speaks again.").status_code == 200


def test_with_every_worker_killed_the_client_waits_for_the_new_ones() -> None:
    # They may take long to start on a busy machine.
    with start_chorus("--workers", "2", recovery_seconds=TIMEOUT * 2) as chorus:
        chorus.await_ready(2)
        for worker in chorus.workers():
            os.kill(worker["pid"], signal.SIGKILL)
        audio = speak(chorus, LAST_WORDS).raise_for_status().content
    assert word_error_rate(LAST_WORDS, audio) <= 0.2


def test_with_no_worker_left_the_answer_is_a_clear_503(chorus: Chorus) -> None:
    chorus.await_ready(2)
    chorus.supervisorctl("stop", "worker:*")

    answer = speak(chorus, "Is anybody there?")  # after recovery_seconds: they might have come back
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    error = answer.json()["error"]
    assert error["code"] == "no_worker"
    assert "no worker answers" in error["message"]
    ready = httpx.get(f"{chorus.url}/ready")
    assert ready.status_code == 503
    assert "no worker answers" in ready.json()["reason"]
    health = httpx.get(f"{chorus.url}/health")
    assert health.status_code == 503
    assert [worker["phase"] for worker in health.json()["workers"]] == ["gone", "gone"]

    chorus.supervisorctl("start", "worker:*")
    chorus.await_ready(2)
    assert speak(chorus, "Here we are.").status_code == 200


def test_a_stopped_worker_is_noticed_and_its_utterance_runs_elsewhere(chorus: Chorus) -> None:
    whole = speak(chorus, ONE_UTTERANCE).raise_for_status().content
    chorus.await_ready(2)
    with ThreadPoolExecutor(1) as client:
        answer = client.submit(speak, chorus, ONE_UTTERANCE)
        stopped = await_busy(chorus)
        os.kill(stopped, signal.SIGSTOP)
        try:
            assert answer.result().raise_for_status().content == whole
        finally:
            os.kill(stopped, signal.SIGCONT)
    chorus.await_ready(2)


def test_a_client_that_leaves_frees_its_worker(chorus: Chorus) -> None:
    chorus.await_ready(2)
    done = sum(worker["done"] for worker in chorus.workers())
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{chorus.url}/tts", json={"text": LONG_TEXT}, timeout=0.3)
    wait_until(lambda: not any(worker["in_flight"] for worker in chorus.workers()))
    assert sum(worker["done"] for worker in chorus.workers()) < done + SENTENCES
    assert speak(chorus, "The slot is free.").status_code == 200


def test_a_killed_supervisor_leaves_no_orphans() -> None:
    with start_chorus("--workers", "1") as chorus:
        children = chorus.children()
        assert len(children) >= 3
        os.kill(chorus.process.pid, signal.SIGKILL)
        chorus.process.wait()
        _, alive = psutil.wait_procs(children, timeout=30)
        assert alive == []
