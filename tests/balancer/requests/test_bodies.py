"""Bodies that are accepted, and their properties. test_bad_input.py has those that are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from balancer.audio.formats import AudioFormat
from balancer.requests.bodies import OpenAISpeechBody, TtsBody

OPENAI = {"model": "tts-1", "input": "Hello.", "voice": "alloy"}


def test_the_minimal_body_of_openai() -> None:
    body = OpenAISpeechBody.model_validate(OPENAI)
    assert body.spoken_text == "Hello."
    assert body.chosen_voice == ("voice", "alloy")
    assert (body.audio_format, body.speed, body.seed, body.extras) == (AudioFormat.MP3, 1.0, None, {})


def test_the_minimal_body_of_tts() -> None:
    body = TtsBody.model_validate({"text": "Hello."})
    assert body.spoken_text == "Hello."
    assert body.chosen_voice == ("character", "default")
    assert (body.audio_format, body.speed, body.seed, body.extras) == (AudioFormat.WAV, 1.0, None, {})


def test_openais_custom_voices_have_an_id() -> None:
    body = OpenAISpeechBody.model_validate(OPENAI | {"voice": {"id": "narrator"}})
    assert body.chosen_voice == ("voice", "narrator")


@pytest.mark.parametrize(
    ("fields", "chosen"),
    [
        ({}, ("character", "default")),
        ({"character": "ash"}, ("character", "ash")),
        ({"voice": "ash"}, ("voice", "ash")),
        ({"voice": "ash", "character": "ash"}, ("voice", "ash")),
        ({"voice": "ash", "character": None}, ("voice", "ash")),
        ({"voice": None, "character": "ash"}, ("character", "ash")),
        ({"voice": "Zoë", "character": " ZOË"}, ("voice", "Zoë")),
        ({"voice": None, "character": None}, ("character", "default")),
    ],
)
def test_character_and_voice_are_the_same(fields: dict[str, str], chosen: tuple[str, str]) -> None:
    assert TtsBody.model_validate({"text": "Hello."} | fields).chosen_voice == chosen


@pytest.mark.parametrize("order", [("voice", "character"), ("character", "voice")])
def test_two_different_voices_are_refused_in_either_order(order: tuple[str, str]) -> None:
    body = {"text": "Hello.", order[0]: "ash", order[1]: "alloy"}
    with pytest.raises(ValidationError, match="differs from character"):
        TtsBody.model_validate(body)


@pytest.mark.parametrize("audio_format", AudioFormat)
def test_every_format_by_name(audio_format: AudioFormat) -> None:
    assert TtsBody.model_validate({"text": "a", "format": audio_format.value}).audio_format is audio_format
    body = OpenAISpeechBody.model_validate(OPENAI | {"response_format": audio_format.value})
    assert body.audio_format is audio_format


@pytest.mark.parametrize("speed", [0.25, 1, 4, 4.0])
def test_the_ends_of_the_range_of_speeds_belong_to_it(speed: float) -> None:
    assert TtsBody.model_validate({"text": "a", "speed": speed}).speed == speed


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_the_ends_of_the_range_of_seeds_belong_to_it(seed: int) -> None:
    assert TtsBody.model_validate({"text": "a", "seed": seed}).seed == seed


def test_undeclared_fields_are_parameters_of_the_engine() -> None:
    body = TtsBody.model_validate({"text": "a", "temperature": 0.5, "x": [1]})
    assert body.extras == {"temperature": 0.5, "x": [1]}


@pytest.mark.parametrize(
    "text", ["a", "1", "½", "日本語", "é", "e\u0301", "Hello\tyou\r\nthere", "\u200ba", "\U0001f600 hi", "ﷺ", "९"]
)
def test_text_that_can_be_spoken_is_accepted_unchanged(text: str) -> None:
    assert TtsBody.model_validate({"text": text}).spoken_text == text


@given(st.text(st.characters(categories=("L", "N", "P", "Z", "S", "M", "Cf", "Co", "Cn")), max_size=50))
def test_a_text_is_accepted_exactly_if_it_has_a_letter_or_digit(text: str) -> None:
    if any(character.isalnum() for character in text):
        assert TtsBody.model_validate({"text": text}).spoken_text == text
    else:
        with pytest.raises(ValidationError, match=r"empty|nothing to speak"):
            TtsBody.model_validate({"text": text})


@given(st.text("abcé", max_size=5), st.characters(categories=("Cc", "Cs")))
def test_no_surrogate_is_accepted_and_control_characters_only_in_texts(before: str, character: str) -> None:
    bodies = ({"text": f"{before}{character}a"}, {"text": "a", "voice": f"{before}{character}"})
    for body in bodies:
        if character in "\t\n\r" or ("voice" not in body and "\0" < character < "\ud800"):
            TtsBody.model_validate(body)
        else:
            with pytest.raises(ValidationError, match=f"at character {len(before)}"):
                TtsBody.model_validate(body)


def test_bodies_do_not_change() -> None:
    with pytest.raises(ValidationError):
        setattr(TtsBody.model_validate({"text": "a"}), "text", "b")  # noqa: B010 - mypy knows that it cannot work
