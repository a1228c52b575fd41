from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from balancer.audio import AudioFormat
from balancer.errors import InvalidRequestError, ModelNotFoundError
from balancer.intake import OPENAI_MODELS, Intake
from balancer.schemas import OpenAISpeechBody, SpeechRequest, TtsBody
from voices.registry import Registry, Voice
from worker.cards import EngineCard, Parameter

CARD = EngineCard(
    name="parrot",
    description="",
    sample_rate=16_000,
    resident_bytes=1,
    seconds_per_character=1.0,
    speed=1.0,
    parameters=(
        Parameter(name="temperature", minimum=0.0, maximum=2.0, default=0.8),
        Parameter(name="top_k", minimum=1, maximum=1000, default=50, integer=True),
    ),
)
CLONING = CARD.model_copy(update={"clones_voices": True})
VOICES = (
    Voice(name="default", engine="*", aliases=("alloy", "ash")),
    Voice(name="polly", engine="parrot", parameters={"temperature": 0.5, "exaggeration": 0.3}),
    Voice(name="finch", engine="finch"),
    Voice(name="clone", reference="a.wav", synthetic=True),
)
REGISTRY = Registry({voice.name: voice for voice in VOICES}, Path("/voices"), {"broken": "voice.toml: no name"})


def intake(card: EngineCard = CARD) -> Intake:
    return Intake(card, REGISTRY, max_characters=10)


def accept(card: EngineCard = CARD, **fields: Any) -> SpeechRequest:
    return intake(card).accept(TtsBody.model_validate({"text": "Hello."} | fields))


def refuse(card: EngineCard = CARD, **fields: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        accept(card, **fields)
    return caught.value


# What is accepted


def test_a_whole_request() -> None:
    assert accept(voice="polly", seed=7, format="flac", speed=2, top_k=3) == SpeechRequest(
        text="Hello.",
        voice=VOICES[1],
        parameters={"temperature": 0.5, "top_k": 3},
        seed=7,
        format=AudioFormat.FLAC,
        speed=2,
    )


def test_both_surfaces_end_in_the_same_request() -> None:
    openai = {"model": "tts-1", "input": "Hello.", "voice": "polly", "response_format": "wav", "seed": 1}
    assert intake().accept(OpenAISpeechBody.model_validate(openai)) == accept(voice="polly", format="wav", seed=1)


@pytest.mark.parametrize("name", ["alloy", "ash", "default"])
def test_an_alias_is_the_voice(name: str) -> None:
    assert accept(voice=name).voice.name == "default"


@pytest.mark.parametrize("model", [*OPENAI_MODELS, "parrot", None])
def test_the_engine_has_many_names(model: str | None) -> None:
    accept(model=model)


def test_a_random_seed_is_another_each_time_and_fits() -> None:
    seeds = {accept().seed for _ in range(50)}
    assert len(seeds) > 40
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_seed_zero_is_a_seed() -> None:
    assert accept(seed=0).seed == 0


def test_a_request_goes_before_its_voice() -> None:
    assert accept(voice="polly", temperature=1.5).parameters == {"temperature": 1.5}
    assert accept(voice="default").parameters == {}


@pytest.mark.parametrize("value", [0, 0.0, 2, 2.0, 0.7])
def test_numbers_within_their_range(value: float) -> None:
    assert accept(temperature=value).parameters == {"temperature": value}


def test_a_text_of_just_the_limit() -> None:
    assert accept(text="a" * 10).text == "a" * 10
    assert accept(text="\U0001f600" * 9 + "a").text.endswith("a")


# What is refused


def test_a_text_over_the_limit() -> None:
    error = refuse(text="a" * 11)
    assert error.message == "text has 11 characters; the limit is 10"
    assert (error.param, error.code) == ("text", "text_too_long")


def test_a_text_over_the_limit_under_openais_name() -> None:
    body = OpenAISpeechBody.model_validate({"model": "tts-1", "input": "a" * 11, "voice": "alloy"})
    with pytest.raises(InvalidRequestError, match="input has 11 characters") as caught:
        intake().accept(body)
    assert caught.value.param == "input"


def test_an_unknown_model() -> None:
    error = refuse(model="finch")
    assert isinstance(error, ModelNotFoundError)
    assert error.param == "model"
    assert "there are: parrot, tts-1" in error.message


@pytest.mark.parametrize("field", ["voice", "character"])
def test_an_unknown_voice(field: str) -> None:
    error = refuse(CARD, **{field: "nobody"})
    assert error.message == "there is no voice 'nobody'; there are: clone, default, finch, polly"
    assert (error.param, error.code) == (field, "voice_not_found")


def test_a_broken_voice_is_not_just_unknown() -> None:
    assert refuse(voice="broken").message == "voice 'broken' cannot be used: voice.toml: no name"


@pytest.mark.parametrize("name", ["finch", "clone"])
def test_a_voice_that_this_engine_cannot_speak(name: str) -> None:
    error = refuse(voice=name)
    assert error.message == f"engine 'parrot' cannot speak voice '{name}'; it can speak: default, polly"
    assert (error.param, error.code) == ("voice", "voice_not_supported")


def test_an_engine_that_clones_speaks_clones() -> None:
    assert accept(CLONING, voice="clone").voice.name == "clone"
    assert [voice.name for voice in intake(CLONING).speakable] == ["clone", "default", "polly"]


@pytest.mark.parametrize("value", [-0.1, 2.1, -(10**400), 10**400, "1", True, None, [], float("nan"), float("inf")])
def test_a_number_out_of_its_range(value: object) -> None:
    error = refuse(temperature=value)
    assert error.message == "temperature must be a number from 0 to 2"
    assert (error.param, error.code) == ("temperature", "invalid_parameter")


@pytest.mark.parametrize("value", [0, 1001, 1.5, 2.0, "5", True, None])
def test_a_whole_number_out_of_its_range(value: object) -> None:
    error = refuse(top_k=value)
    assert error.message == "top_k must be a whole number from 1 to 1000"
    assert (error.param, error.code) == ("top_k", "invalid_parameter")


def test_a_parameter_that_this_engine_lacks() -> None:
    error = refuse(exaggeration=0.5)
    assert error.message == (
        "unknown field 'exaggeration'; this request takes speed, seed, text, character, voice, model, format, "
        "and the parameters of engine 'parrot': temperature, top_k"
    )
    assert (error.param, error.code) == ("exaggeration", "unknown_parameter")
