"""Clients leave, workers die and weights break under Chatterbox Turbo; whoever still listens hears the right audio."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.conftest import (
    MODEL_TIMEOUT,
    Chorus,
    Home,
    link_files,
    run_concurrently,
    start_model,
    synthesize,
)
from tests.support.harness import wait_until
from tests.support.tiny_models import TinyCheckpoint

LONGEST = "abcdefghij" * 28
LONG = "abcdefghij" * 5
"""Its budget ends after 250 tokens, and with it the decoding; the sound of so many takes a while."""


@pytest.fixture(scope="module")
def weights(tiny_checkpoint: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the weights, for this module to break."""
    return link_files(tmp_path_factory.mktemp("weights") / "turbo", tiny_checkpoint("turbo").iterdir())


@pytest.fixture(scope="module")
def chorus(weights: Path, home: Home) -> Iterator[Chorus]:
    with start_model("turbo", home, model_dir=weights, workers=2, runtime="stock") as running:
        yield running


@contextmanager
def listening(chorus: Chorus, text: str) -> Iterator[None]:
    """A client that has sent a request, and leaves when the block ends."""
    host, port = chorus.url.removeprefix("http://").split(":")
    body = json.dumps({"text": text}).encode()
    head = (
        f"POST /tts HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as client:
        client.sendall(head.encode() + body)
        yield


def in_flight(chorus: Chorus) -> list[int]:
    return [len(state.in_flight) for state in chorus.states()]


def pids(chorus: Chorus) -> list[int]:
    return [worker["pid"] for worker in chorus.workers()]


@pytest.mark.parametrize("stage", ["decoding", "making sound"])
def test_clients_that_leave_free_their_workers_in_the_middle(chorus: Chorus, stage: str) -> None:
    chorus.await_ready(2)
    before = chorus.states()
    seen = len(chorus.log.read_bytes())

    def log() -> str:
        return chorus.log.read_bytes()[seen:].decode()

    decoded = "take 1 is bad (cut)"
    text = LONGEST if stage == "decoding" else LONG
    with listening(chorus, text), listening(chorus, text):
        wait_until(lambda: in_flight(chorus) == [1, 1])
        if stage == "making sound":
            wait_until(lambda: log().count(decoded) == 2, timeout=MODEL_TIMEOUT)
    wait_until(lambda: in_flight(chorus) == [0, 0])
    wait_until(lambda: [worker["in_flight"] for worker in chorus.workers()] == [0, 0])

    # An engine that cannot stop would have made all the samples by then.
    assert [state.done for state in chorus.states()] == [state.done for state in before]
    wait_until(lambda: log().count("utterance cancelled") == 2)
    one, other = run_concurrently(*[partial(synthesize, chorus)] * 2)
    assert one == other
    assert [state.done for state in chorus.states()] == [state.done + 1 for state in before]
    assert pids(chorus) == [state.pid for state in before]
    assert chorus.metric("chorus_workers_lost_total") == 0


def test_a_worker_killed_in_mid_utterance_costs_its_client_only_time(chorus: Chorus) -> None:
    chorus.await_ready(2, timeout=MODEL_TIMEOUT)
    text = "Said again."
    whole = synthesize(chorus, text)
    chorus.await_ready(2)
    before, retries = pids(chorus), chorus.metric("chorus_retries_total")

    with ThreadPoolExecutor(1) as client:
        answer = client.submit(synthesize, chorus, text)
        wait_until(lambda: sum(in_flight(chorus)) == 1)
        killed = next(state.pid for state in chorus.states() if state.in_flight)
        os.kill(killed, signal.SIGKILL)
        assert not answer.done(), "the utterance was over before its worker was killed"
        assert answer.result() == whole

    assert chorus.metric("chorus_retries_total") == retries + 1
    chorus.await_ready(2, timeout=MODEL_TIMEOUT)
    after = pids(chorus)
    assert killed not in after
    assert len(set(after) - set(before)) == 1, "supervisord has started one new worker"
    assert run_concurrently(*[partial(synthesize, chorus, text)] * 2) == [whole, whole]


def test_weights_that_break_meanwhile_cost_only_the_worker_that_loads_them(
    chorus: Chorus, weights: Path, tmp_path: Path
) -> None:
    chorus.await_ready(2, timeout=MODEL_TIMEOUT)
    whole = synthesize(chorus)
    file = weights / "ve.safetensors"
    good = tmp_path / "good"
    shutil.copyfile(file, good)
    # Renamed into place: the workers that run have the old file mapped.
    damaged = tmp_path / "damaged"
    damaged.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    damaged.replace(file)

    os.kill(pids(chorus)[0], signal.SIGKILL)
    wait_until(lambda: chorus.workers()[0]["phase"] == "failed", timeout=MODEL_TIMEOUT)
    report = chorus.health()
    assert report["status"] == "healthy"
    assert report["workers"][0]["reason"].startswith(f"turbo's weights in {weights} are damaged: ve.safetensors has ")
    assert httpx.get(f"{chorus.url}/ready").status_code == 200
    assert synthesize(chorus) == whole

    good.replace(file)
    chorus.supervisorctl("restart", "worker:worker-0")
    chorus.await_ready(2, timeout=MODEL_TIMEOUT)
    assert run_concurrently(*[partial(synthesize, chorus)] * 2) == [whole, whole]
