"""Turbo with several utterances at once in one worker, over HTTP: each sounds as it does alone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import httpx
import pytest

from scripts.support.servers import read_state
from tests.end_to_end.conftest import MODEL_TIMEOUT, Chorus, Home, start_model
from tests.support.harness import POLL_INTERVAL_SECONDS, TIMEOUT, wait_until
from tests.support.real_worker import utterance
from tests.support.tiny_models import TinyCheckpoint
from worker.contract import SAMPLE_BYTES, FrameDecoder, FrameKind

SLOTS = 3
TEXTS = ("Hi.", "Now.", "Soon.", "Later.")
"""More than there are slots, of different lengths, and short: the time of these tests is that of their speech."""


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: TinyCheckpoint) -> Path:
    return tiny_checkpoint("turbo")


@pytest.fixture(scope="module")
def batched(home: Home, checkpoint: Path) -> Iterator[Chorus]:
    # A killed worker's successor may take long to load on a busy machine.
    with start_model(
        "turbo", home, model_dir=checkpoint, workers=1, slots=SLOTS, recovery_seconds=MODEL_TIMEOUT
    ) as running:
        yield running


def speak(chorus: Chorus, text: str) -> bytes:
    answer = httpx.post(f"{chorus.url}/tts", json={"text": text, "seed": len(text)}, timeout=TIMEOUT * 10)
    assert answer.status_code == 200, answer.text
    return answer.content


def in_flight(chorus: Chorus) -> int:
    """The utterances in its worker at this moment; `/health` has those of the last poll."""
    [state] = chorus.states()
    return len(state.in_flight)


@pytest.fixture(scope="module")
def alone(batched: Chorus) -> list[bytes]:
    """The audio of each text, spoken while nothing else is."""
    return [speak(batched, text) for text in TEXTS]


def test_the_balancer_fills_every_slot_and_each_utterance_sounds_as_alone(batched: Chorus, alone: list[bytes]) -> None:
    assert httpx.get(f"{batched.url}/health").json()["slots"] == SLOTS
    most = 0
    with ThreadPoolExecutor(len(TEXTS)) as clients:
        answers = [clients.submit(speak, batched, text) for text in TEXTS]
        while wait(answers, timeout=POLL_INTERVAL_SECONDS).not_done:
            most = max(most, in_flight(batched))
    assert most == SLOTS
    assert [answer.result() for answer in answers] == alone


def test_it_sounds_as_upstreams_own_classes(alone: list[bytes], home: Home, checkpoint: Path) -> None:
    with start_model("turbo", home, model_dir=checkpoint, workers=1, runtime="stock") as stock:
        assert httpx.get(f"{stock.url}/health").json()["slots"] == 1
        for text, found in zip(TEXTS[:2], alone, strict=False):
            assert len(found) == len(speak(stock, text))


def test_a_client_that_leaves_frees_its_slot(batched: Chorus) -> None:
    for _ in range(SLOTS):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{batched.url}/tts", json={"text": "A longer text. " * 20}, timeout=0.3)
    wait_until(lambda: batched.workers()[0]["in_flight"] == 0)
    assert speak(batched, TEXTS[0])


def test_a_worker_sends_a_first_piece_before_it_has_the_rest(batched: Chorus) -> None:
    [path] = batched.run_dir.glob("worker-*.sock")
    spoken = utterance(
        "A longer text. " * 20, "early", token_budget=800, first_piece_tokens=25, playout_deadline=0.0
    ).model_dump_json()
    transport = httpx.HTTPTransport(uds=str(path))
    with (
        httpx.Client(transport=transport, base_url="http://worker", timeout=TIMEOUT) as client,
        client.stream("POST", "/synthesize", content=spoken) as answer,
    ):
        decoder, chunks = FrameDecoder(), answer.iter_raw()
        frames: list[tuple[FrameKind, bytes]] = []
        while not frames:
            frames = decoder.feed(next(chunks))
        assert read_state(path, timeout=TIMEOUT).in_flight == ("early",)
        assert [(kind, len(payload)) for kind, payload in frames] == [(FrameKind.PCM, 25 * 960 * SAMPLE_BYTES)]
    wait_until(lambda: not read_state(path, timeout=TIMEOUT).in_flight)


def test_a_killed_worker_costs_nothing_but_time(batched: Chorus, alone: list[bytes]) -> None:
    with ThreadPoolExecutor(SLOTS) as clients:
        answers = [clients.submit(speak, batched, text) for text in TEXTS[:SLOTS]]
        wait_until(lambda: in_flight(batched) == SLOTS)
        worker = next(child for child in batched.children() if "worker" in child.cmdline())
        worker.kill()
        found = [answer.result() for answer in answers]
    assert found == alone[:SLOTS]
