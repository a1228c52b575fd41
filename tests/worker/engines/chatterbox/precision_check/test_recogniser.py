"""The recogniser of `chorus check-precision`, on speech of the embedded voice."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
from hibari import Hibari

from worker.engines.base import Samples
from worker.engines.chatterbox.precision_check import recogniser, word_recognition

RATE = 24_000
TEXT = "The birds have flown over the river, and the wind was cold this morning."


@pytest.fixture(scope="module")
def speech() -> Samples:
    return np.asarray(Hibari(threads=1)(TEXT, seed=0), dtype=np.float32)


def test_most_words_are_recognised(speech: Samples) -> None:
    found = recogniser.count_word_errors(TEXT, speech, RATE)
    assert found is not None
    assert found.words == 14
    assert found.errors <= 6


def test_another_text_has_an_error_rate_above_one(speech: Samples) -> None:
    found = recogniser.count_word_errors("Please send me two bottles of ink by Friday.", speech, RATE)
    assert found is not None
    assert found.rate > 1


def test_recognition_does_not_depend_on_earlier_audio(speech: Samples) -> None:
    first = recogniser.transcribe(speech, RATE)
    recogniser.transcribe(0.01 * speech[::-1].copy(), RATE)
    assert recogniser.transcribe(speech, RATE) == first


def test_silence_has_none_of_the_words() -> None:
    found = recogniser.count_word_errors(TEXT, np.zeros(RATE, np.float32), RATE)
    assert found is not None
    assert (found.errors >= 13, found.words) == (True, 14)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, World!", ["hello", "world"]),
        ("It's well-known [laugh] to the Smiths'.", ["it's", "well", "known", "to", "the", "smiths'"]),
        ("Nobody\u2019s  boat\n", ["nobody's", "boat"]),
        ("[sigh] 42 …", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert word_recognition.words(text) == words


def test_a_text_without_words_has_no_error_rate(speech: Samples) -> None:
    assert recogniser.count_word_errors("[laugh] 1984", speech, RATE) is None


def test_english_only() -> None:
    assert recogniser.unavailable_reason("en") is None
    reason = recogniser.unavailable_reason("fr")
    assert reason is not None
    assert "'fr'" in reason


@pytest.mark.parametrize("absent", [("jiwer",), ("pocketsphinx",), recogniser.LIBRARIES])
def test_what_to_install(absent: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def found(name: str) -> ModuleSpec | None:
        return None if name in absent else find(name)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    reason = recogniser.unavailable_reason("en")
    assert reason is not None
    assert " and ".join(absent) in reason
    assert "pip install -e '.[check]'" in reason
