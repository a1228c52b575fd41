"""Turbo with several utterances at once in one worker, over HTTP: each sounds as it does alone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.conftest import Chorus, Home, start_model
from tests.support.harness import TIMEOUT, wait_until
from tests.support.tiny_models import TinyCheckpoint

SLOTS = 3
TEXTS = [f"Text number {number}." for number in range(9)]


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: TinyCheckpoint) -> Path:
    return tiny_checkpoint("turbo")


@pytest.fixture(scope="module")
def batched(home: Home, checkpoint: Path) -> Iterator[Chorus]:
    with start_model("turbo", home, model_dir=checkpoint, workers=1, slots=SLOTS) as running:
        yield running


def speak(chorus: Chorus, text: str) -> bytes:
    answer = httpx.post(f"{chorus.url}/tts", json={"text": text, "seed": len(text)}, timeout=TIMEOUT * 10)
    assert answer.status_code == 200, answer.text
    return answer.content


def test_the_balancer_fills_every_slot_and_each_utterance_sounds_as_alone(batched: Chorus) -> None:
    alone = [speak(batched, text) for text in TEXTS]
    assert httpx.get(f"{batched.url}/health").json()["slots"] == SLOTS
    most = 0
    with ThreadPoolExecutor(len(TEXTS)) as clients:
        answers = [clients.submit(speak, batched, text) for text in TEXTS]
        while not all(answer.done() for answer in answers):
            most = max(most, batched.workers()[0]["in_flight"])
    assert most == SLOTS
    assert [answer.result() for answer in answers] == alone


def test_it_sounds_as_upstreams_own_classes(batched: Chorus, home: Home, checkpoint: Path) -> None:
    with start_model("turbo", home, model_dir=checkpoint, workers=1, runtime="stock") as stock:
        assert httpx.get(f"{stock.url}/health").json()["slots"] == 1
        for text in TEXTS[:2]:
            expected, found = speak(stock, text), speak(batched, text)
            assert len(found) == len(expected)


def test_a_client_that_leaves_frees_its_slot(batched: Chorus) -> None:
    for _ in range(SLOTS):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{batched.url}/tts", json={"text": "A longer text. " * 20}, timeout=0.3)
    wait_until(lambda: batched.workers()[0]["in_flight"] == 0)
    assert speak(batched, TEXTS[0])


def test_a_killed_worker_costs_nothing_but_time(batched: Chorus) -> None:
    expected = [speak(batched, text) for text in TEXTS[:SLOTS]]
    with ThreadPoolExecutor(SLOTS) as clients:
        answers = [clients.submit(speak, batched, text) for text in TEXTS[:SLOTS]]
        wait_until(lambda: batched.workers()[0]["in_flight"] == SLOTS)
        worker = next(child for child in batched.children() if "worker" in child.cmdline())
        worker.kill()
        found = [answer.result() for answer in answers]
    assert found == expected
