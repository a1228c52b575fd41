"""A long text is spoken in segments on all workers at once, and sounds the same on any number of them."""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from balancer.audio.joining import SILENCE
from scripts.support.recogniser import word_error_rate
from tests.end_to_end.conftest import Chorus, start_chorus, synthesize
from tests.support.harness import TIMEOUT, wait_until

WORDS = ("harbour", "village", "station", "museum", "bakery", "orchard", "bridge", "valley", "castle", "island")
TEXT = " ".join(f"The old {word} was painted green last summer." for word in WORDS) + "\n\nThat was all."
SEED = 11


def longest_silence(audio: bytes) -> float:
    """Seconds of a wav file without a loud sample, at most."""
    with wave.open(io.BytesIO(audio), "rb") as file:
        samples = np.abs(np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(int))
        return int(np.diff(np.flatnonzero(samples > SILENCE)).max()) / file.getframerate()


@pytest.fixture(scope="module")
def spoken(chorus: Chorus) -> bytes:
    """TEXT, spoken by two workers."""
    return synthesize(chorus, TEXT, seed=SEED)


def test_every_word_is_heard(spoken: bytes) -> None:
    assert word_error_rate(TEXT, spoken) < 0.2


def test_a_pause_is_heard_as_silence_of_its_length(chorus: Chorus) -> None:
    text = "The harbour was calm. {} We left at noon."
    silence = [longest_silence(synthesize(chorus, text.format(pause))) for pause in ("[pause 2s]", "")]
    assert 2.0 <= silence[0] < 2.2
    assert silence[1] < 1.0


def test_one_worker_gives_the_same_bytes(spoken: bytes) -> None:
    # As many threads as each of the two: the embedded engine's sums depend on them.
    with start_chorus("--workers", "1", "--threads", "1") as one:
        assert synthesize(one, TEXT, seed=SEED) == spoken


def test_a_worker_that_dies_costs_its_segment_only_time(chorus: Chorus, spoken: bytes) -> None:
    chorus.await_ready(2)
    with ThreadPoolExecutor(1) as client:
        answer = client.submit(synthesize, chorus, TEXT, seed=SEED)
        wait_until(lambda: any(state.in_flight for state in chorus.states()))
        next(child for child in chorus.children() if "worker" in child.cmdline()).kill()
        assert answer.result() == spoken


def test_a_worker_that_dies_in_mid_stream_costs_no_sound(chorus: Chorus) -> None:
    chorus.await_ready(2)
    undisturbed = b"".join(stream(chorus, TEXT))
    pieces = stream(chorus, TEXT)
    first = next(pieces)
    next(child for child in chorus.children() if "worker" in child.cmdline()).kill()
    assert first + b"".join(pieces) == undisturbed


def stream(chorus: Chorus, text: str) -> Iterator[bytes]:
    """The audio, piece by piece as it is made."""
    body = {"text": text, "seed": SEED, "format": "mp3", "stream": True}
    with httpx.stream("POST", f"{chorus.url}/tts", json=body, timeout=TIMEOUT) as response:
        assert response.headers["transfer-encoding"] == "chunked"
        yield from response.iter_raw()
