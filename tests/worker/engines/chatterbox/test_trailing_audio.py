"""What follows the last word is trimmed, in a real voice with noise behind it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from scripts.benchmarks.trim import RATE, TAIL_SECONDS, TAILS, voice, with_tail
from tests.support.real_worker import utterance
from worker.engines.base import ModelUnavailableError, Samples
from worker.engines.chatterbox import trailing_audio
from worker.engines.chatterbox.trailing_audio import FADE_SECONDS, MARGIN_SECONDS, TrailingAudioTrimmer

TEXTS = ("He asked for six fresh fish.", "Stop that.", "Yes.")


@pytest.fixture(scope="module")
def trimmer() -> TrailingAudioTrimmer:
    return TrailingAudioTrimmer()


@pytest.fixture(scope="module", params=TEXTS)
def spoken(request: pytest.FixtureRequest) -> Samples:
    """A voice that ends with its last sound."""
    return voice(request.param)


@pytest.mark.parametrize("tail", TAILS)
def test_what_follows_the_voice_is_trimmed_and_the_voice_is_not(
    trimmer: TrailingAudioTrimmer, spoken: Samples, tail: str
) -> None:
    whole = with_tail(spoken, TAILS[tail])
    trimmed = trimmer.trim(whole, RATE, utterance())
    left = (len(trimmed) - len(spoken)) / RATE
    assert FADE_SECONDS <= left <= 0.6 * TAIL_SECONDS
    fade = round(FADE_SECONDS * RATE)
    assert np.array_equal(trimmed[:-fade], whole[: len(trimmed) - fade])
    assert trimmed[-1] == 0, "there is no click"
    assert np.all(np.abs(trimmed[-fade:]) <= np.abs(whole[len(trimmed) - fade : len(trimmed)]))


def test_what_was_sent_is_left_and_the_fade_follows_it(trimmer: TrailingAudioTrimmer, spoken: Samples) -> None:
    whole = with_tail(spoken, TAILS["silence"])
    sent, fade = len(spoken) + RATE // 2, round(FADE_SECONDS * RATE)
    trimmed = trimmer.trim(whole, RATE, utterance(), sent=sent)
    assert len(trimmed) == sent + fade
    assert np.array_equal(trimmed[:sent], whole[:sent])
    early = trimmer.trim(whole, RATE, utterance(), sent=RATE // 10)
    assert np.array_equal(early, trimmer.trim(whole, RATE, utterance()))


def test_a_voice_with_little_behind_it_stays_as_it_is(trimmer: TrailingAudioTrimmer, spoken: Samples) -> None:
    assert trimmer.trim(spoken, RATE, utterance()) is spoken
    short = np.concatenate([spoken, np.zeros(round(MARGIN_SECONDS * RATE), np.float32)])
    assert trimmer.trim(short, RATE, utterance()) is short


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(RATE, np.float32),
        np.random.default_rng(1).standard_normal(2 * RATE).astype(np.float32) / 10,
        np.zeros(1, np.float32),
    ],
    ids=["silence", "noise", "one sample"],
)
def test_audio_without_speech_stays_as_it_is(trimmer: TrailingAudioTrimmer, samples: Samples) -> None:
    """The noise of random weights, among others."""
    assert trimmer.trim(samples, RATE, utterance()) is samples


@pytest.mark.parametrize("text", ["Well [laugh]", "Well. [sigh].", 'She said "no [cough]!"'])
def test_the_sound_that_ends_a_text_is_not_trimmed(trimmer: TrailingAudioTrimmer, spoken: Samples, text: str) -> None:
    whole = with_tail(spoken, TAILS["a breath, -20 dB"])
    assert trimmer.trim(whole, RATE, utterance(text)) is whole
    assert trimmer.trim(whole, RATE, utterance("[laugh] Well.")) is not whole


def test_an_utterance_with_a_budget_of_its_own_is_not_trimmed(trimmer: TrailingAudioTrimmer, spoken: Samples) -> None:
    whole = with_tail(spoken, TAILS["silence"])
    assert trimmer.trim(whole, RATE, utterance(token_budget=50)) is whole


def test_the_package_is_not_imported_since_it_would_limit_pytorchs_threads(trimmer: TrailingAudioTrimmer) -> None:
    assert trimmer is not None
    assert "silero_vad" not in sys.modules


def test_equal_audio_is_trimmed_equally(trimmer: TrailingAudioTrimmer, spoken: Samples) -> None:
    whole = with_tail(spoken, TAILS["white noise, -20 dB"])
    before = torch.get_num_threads()
    first = trimmer.trim(whole, RATE, utterance())
    trimmer.trim(whole[: len(whole) // 2], RATE, utterance())
    assert np.array_equal(trimmer.trim(whole, RATE, utterance()), first)
    assert torch.get_num_threads() == before


def test_a_missing_detector_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trailing_audio, "find_spec", lambda _: None)
    with pytest.raises(ModelUnavailableError, match="needs silero-vad"):
        TrailingAudioTrimmer()
