"""Many clients at once hear each their own words."""

from __future__ import annotations

import base64
import os
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from scripts.support.recogniser import audio_seconds, word_error_rate
from tests.end_to_end.conftest import Chorus
from tests.support.audio_files import last_seconds

SENTENCES = (
    "The weather is beautiful this morning.",
    "She opened the window and looked outside.",
    "My brother works in a small hospital.",
    "The children are playing in the garden.",
    "He bought a new car last year.",
    "I would like a cup of coffee, please.",
    "The train to London leaves at seven.",
    "Please close the door behind you.",
    "The river flows slowly through the valley.",
    "Nobody knows where the money came from.",
    "Our teacher gave us a very difficult question.",
    "Remember to turn off the lights.",
)
SEED = 7
"""Of what the recogniser hears: with some seeds it mishears a word."""


def test_twelve_clients_at_once_hear_each_their_own_words(chorus: Chorus) -> None:
    def ask(sentence: str) -> bytes:
        body = {"text": sentence, "character": "default", "seed": SEED}
        answer = httpx.post(f"{chorus.url}/tts", json=body, timeout=60)
        return answer.raise_for_status().content

    with ThreadPoolExecutor(len(SENTENCES)) as clients:
        answers = list(clients.map(ask, SENTENCES))

    rates = {sentence: word_error_rate(sentence, audio) for sentence, audio in zip(SENTENCES, answers, strict=True)}
    assert {sentence: rate for sentence, rate in rates.items() if rate > 0.1} == {}
    assert all(worker["done"] > 0 for worker in chorus.workers())


def test_a_seed_gives_the_same_audio_from_either_worker_whatever_else_they_speak(chorus: Chorus) -> None:
    before = [worker["done"] for worker in chorus.workers()]
    same = {"text": "This sentence sounds the same every time.", "seed": 11}
    bodies = [same if turn % 2 else {"text": SENTENCES[turn % 12], "seed": turn} for turn in range(24)]

    def ask(body: dict[str, object]) -> bytes:
        return httpx.post(f"{chorus.url}/tts", json=body, timeout=60).raise_for_status().content

    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(ask, bodies))

    alike = {answer for body, answer in zip(bodies, answers, strict=True) if body is same}
    assert len(alike) == 1
    assert ask({**same, "seed": 12}) not in alike
    chorus.await_ready(2)
    after = [worker["done"] for worker in chorus.workers()]
    assert all(now > then for then, now in zip(before, after, strict=True)), "one worker spoke nothing"


def test_tts_json_holds_the_audio_and_what_it_is(chorus: Chorus) -> None:
    body = {"text": SENTENCES[0], "character": "nova", "format": "mp3", "seed": SEED}
    answer = httpx.post(f"{chorus.url}/tts-json", json=body, headers={"X-Request-Id": "mine-1"}, timeout=60)

    report = answer.raise_for_status().json()
    audio = base64.b64decode(report.pop("audio"), validate=True)
    assert report == {
        "format": "mp3",
        "mimeType": "audio/mpeg",
        "sampleRate": 24_000,
        "duration": pytest.approx(audio_seconds(audio), abs=0.05),
        "character": "nova",
        "cached": False,
        "requestId": "mine-1",
    }
    assert answer.headers["X-Request-Id"] == "mine-1"
    assert word_error_rate(SENTENCES[0], audio) <= 0.1


@pytest.mark.parametrize("speed", [0.8, 1.25])
def test_another_speed_takes_another_time_for_the_same_words(chorus: Chorus, speed: float) -> None:
    def ask(tempo: float) -> bytes:
        body = {"text": SENTENCES[0], "seed": 3, "speed": tempo}
        return httpx.post(f"{chorus.url}/tts", json=body, timeout=60).raise_for_status().content

    audio = ask(speed)
    assert audio_seconds(audio) == pytest.approx(audio_seconds(ask(1.0)) / speed, abs=0.02)
    assert word_error_rate(SENTENCES[0], audio) <= 0.1


def test_five_thousand_characters_are_spoken_to_the_end(chorus: Chorus) -> None:
    last_words = "Please close the door behind you."
    text = "word and another thing " * 300
    text = f"{text[: 4999 - len(last_words)]} {last_words}"
    assert len(text) == 5000

    answer = httpx.post(f"{chorus.url}/tts", json={"text": text, "seed": SEED}, timeout=120).raise_for_status()
    assert float(answer.headers["X-Audio-Seconds"]) > 200
    assert word_error_rate(last_words, last_seconds(answer.content, 2.2)) <= 0.2


def test_text_that_the_voice_cannot_say_is_the_clients_fault(chorus: Chorus) -> None:
    answer = httpx.post(f"{chorus.url}/tts", json={"text": "你好"}, timeout=60)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "unsupported_script"
    assert answer.json()["error"]["param"] == "text"
    body = {"input": "你好", "model": "tts-1", "voice": "alloy"}
    assert httpx.post(f"{chorus.url}/v1/audio/speech", json=body).json()["error"]["param"] == "input"


def test_each_worker_is_confined_to_its_own_cores(chorus: Chorus) -> None:
    cores = [set(worker["cores"]) for worker in chorus.workers()]
    for worker, own in zip(chorus.workers(), cores, strict=True):
        assert psutil.Process(worker["pid"]).cpu_affinity() == sorted(own)
        # Five more than the server's own, of 19 at most.
        assert psutil.Process(worker["pid"]).nice() == min(19, psutil.Process().nice() + 5)
    if len(os.sched_getaffinity(0)) >= 2:
        assert cores[0].isdisjoint(cores[1])
