"""The texts of requests as the engines get them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from balancer.errors import InvalidRequestError
from balancer.requests.bodies import OpenAISpeechBody, TtsBody
from balancer.requests.text_preparation import MAX_GROWTH, TextPreparation
from balancer.requests.validation import MAX_LOOP_CHARACTERS, RequestValidator
from balancer.text.front_end import FrontEnd
from voices.registry import Registry, Voice
from worker.cards import CARDS

HIBARI = TextPreparation(CARDS["hibari"], max_characters=100)
TURBO = TextPreparation(CARDS["turbo"], max_characters=5000)


def refusal(preparation: TextPreparation, body: TtsBody, language: str = "en") -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        preparation.spoken(body, language)
    return caught.value


def test_the_setting_counts_where_a_request_does_not_say() -> None:
    plain = replace(HIBARI, normalize=False)
    texts = [
        preparation.spoken(TtsBody(text="It is $5.", normalize=normalize), "en").plain
        for preparation in (HIBARI, plain)
        for normalize in (None, True, False)
    ]
    said, written = "It is five dollars.", "It is $5."
    assert texts == [said, said, written, written, said, written]


def test_engines_get_the_tags_that_they_know() -> None:
    body = TtsBody(text="So [laugh] it is.")
    assert TURBO.spoken(body, "en").plain == "So [laugh] it is."
    assert HIBARI.spoken(body, "en").plain == "So it is."


def test_a_text_in_another_script_is_refused_by_the_name_of_its_field() -> None:
    error = refusal(HIBARI, TtsBody(text="\u4f60\u597d"))
    assert (error.code, error.param) == ("unsupported_script", "text")
    openai = OpenAISpeechBody(model="tts-1", input="\u4f60\u597d", voice="default")
    with pytest.raises(InvalidRequestError, match="input is written in another script") as caught:
        HIBARI.spoken(openai, "en")
    assert caught.value.param == "input"
    assert HIBARI.spoken(TtsBody(text="\u4f60\u597d"), "zh").plain == "\u4f60\u597d"


def test_a_text_that_says_nothing_is_refused() -> None:
    assert refusal(HIBARI, TtsBody(text="<!-- a -->")).code == "nothing_to_speak"


def test_what_is_said_is_bounded() -> None:
    error = refusal(HIBARI, TtsBody(text="\u2265" * 60 + "a"))
    assert (error.code, error.param) == ("text_too_long", "text")
    assert f"the limit is {100 * MAX_GROWTH}" in error.message


async def test_long_texts_are_prepared_like_short_ones() -> None:
    validator = RequestValidator(
        CARDS["hibari"], Registry({"default": Voice(name="default", engine="*")}, Path("/voices")), 5000
    )
    text = "It costs $5. " * 30
    assert len(text) > MAX_LOOP_CHARACTERS
    request = await validator.validate_for_client(TtsBody(text=text))
    assert request.text == ("It costs five dollars. " * 30).strip()
    assert request.characters == len(text)
    with pytest.raises(InvalidRequestError):
        await validator.validate_for_client(TtsBody(text="\u4f60\u597d" * 200))


def test_an_engine_that_knows_tags_makes_them_alone_a_text() -> None:
    assert TURBO.spoken(TtsBody(text="[laugh]"), "en").plain == "[laugh]"
    assert refusal(HIBARI, TtsBody(text="[laugh]")).code == "nothing_to_speak"


def test_a_text_that_was_prepared_before_is_not_prepared_again(monkeypatch: pytest.MonkeyPatch) -> None:
    preparation = replace(HIBARI)
    assert preparation.spoken(TtsBody(text="It costs $5."), "en").plain == "It costs five dollars."
    monkeypatch.setattr(FrontEnd, "prepare", None)
    assert preparation.spoken(TtsBody(text="It costs $5."), "en").plain == "It costs five dollars."
    with pytest.raises(TypeError):
        preparation.spoken(TtsBody(text="It costs $5."), "de")
