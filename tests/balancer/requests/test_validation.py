from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from balancer.audio.formats import AudioFormat
from balancer.errors import InvalidRequestError, ModelNotFoundError, QueueFullError
from balancer.requests import validation
from balancer.requests.bodies import OpenAISpeechBody, TtsBody
from balancer.requests.speech_request import SpeechRequest
from balancer.requests.validation import MAX_LOOP_CHARACTERS, OPENAI_MODELS, RequestValidator
from voices.registry import Registry, Voice
from worker.cards import CARDS, Choice, EngineCard, Parameter, SegmentLength

CARD = EngineCard(
    name="parrot",
    description="",
    sample_rate=16_000,
    resident_bytes=1,
    segments=SegmentLength(maximum=8),
    seconds_per_character=1.0,
    speed=1.0,
    parameters=(
        Parameter(name="temperature", minimum=0.0, maximum=2.0, default=0.8),
        Parameter(name="top_k", minimum=1, maximum=1000, default=50, integer=True),
    ),
)
CLONING = CARD.model_copy(update={"clones_voices": True})
LANGUAGE = Choice(name="language", choices=("en", "fr", "pt", "zh"))
MOOD = Choice(name="mood", choices=("Calm", "sad"))
POLYGLOT = CARD.model_copy(update={"parameters": (*CARD.parameters, LANGUAGE, MOOD)})
VOICES = (
    Voice(name="default", engine="*", aliases=("alloy", "ash")),
    Voice(name="polly", engine="parrot", parameters={"temperature": 0.5, "exaggeration": 0.3}),
    Voice(name="finch", engine="finch"),
    Voice(name="clone", reference="a.wav", synthetic=True),
    Voice(name="canary", engine="parrot", language="pt-BR"),
    Voice(name="budgie", engine="parrot", language="cs"),
    Voice(name="jackdaw", engine="parrot", language="cs", parameters={"language": "FR", "mood": "calm"}),
    Voice(name="crow", engine="parrot", parameters={"temperature": 9, "mood": "glad"}),
    Voice(name="rook", engine="parrot", parameters={"mood": "glad"}),
)
BROKEN = {"broken": "voice.toml: no name"}
REGISTRY = Registry({voice.name: voice for voice in VOICES}, Path("/voices"), BROKEN)


def validator(card: EngineCard = CARD) -> RequestValidator:
    return RequestValidator(card, REGISTRY, max_characters=10)


def accept(card: EngineCard = CARD, **fields: Any) -> SpeechRequest:
    return validator(card).validate(TtsBody.model_validate({"text": "Hello."} | fields))


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
    assert validator().validate(OpenAISpeechBody.model_validate(openai)) == accept(voice="polly", format="wav", seed=1)


@pytest.mark.parametrize("name", ["alloy", "ash", "default", "Alloy", " DEFAULT ", "\uff21sh"])
def test_an_alias_is_the_voice(name: str) -> None:
    assert accept(voice=name).voice.name == "default"


@pytest.mark.parametrize("model", [*OPENAI_MODELS, "parrot", None])
def test_the_engine_has_many_names(model: str | None) -> None:
    accept(model=model)


def test_a_random_seed_differs_each_time_and_is_in_range() -> None:
    seeds = {accept().seed for _ in range(50)}
    assert len(seeds) > 40
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_seed_zero_is_a_seed() -> None:
    assert accept(seed=0).seed == 0


def test_parameters_of_the_request_replace_those_of_the_voice() -> None:
    assert accept(voice="polly", temperature=1.5).parameters == {"temperature": 1.5}
    assert accept(voice="default").parameters == {}


@pytest.mark.parametrize("value", [0, 0.0, 2, 2.0, 0.7])
def test_numbers_within_their_range(value: float) -> None:
    sent = accept(temperature=value).parameters["temperature"]
    assert (sent, type(sent)) == (value, float)


@pytest.mark.parametrize("value", [1, 7, 1000])
def test_whole_numbers_within_their_range(value: int) -> None:
    sent = accept(top_k=value).parameters["top_k"]
    assert (sent, type(sent)) == (value, int)


def test_numbers_of_a_voice_have_the_right_type_too() -> None:
    voice = Voice(name="default", engine="*", parameters={"temperature": 1, "top_k": 5})
    own = RequestValidator(CARD, Registry({"default": voice}, Path("/voices")), 10).validate(TtsBody(text="Hello."))
    assert {name: type(value) for name, value in own.parameters.items()} == {"temperature": float, "top_k": int}


@pytest.mark.parametrize(
    ("value", "sent"), [("fr", "fr"), ("FR", "fr"), ("en-GB", "en"), ("pt_BR", "pt"), ("ZH-Hans-CN", "zh")]
)
def test_a_language_is_accepted_with_its_region(value: str, sent: str) -> None:
    assert accept(POLYGLOT, language=value).parameters == {"language": sent}


@pytest.mark.parametrize(("value", "sent"), [("Calm", "Calm"), ("calm", "Calm"), ("SAD", "sad")])
def test_a_choice_is_sent_in_the_spelling_of_the_engine(value: str, sent: str) -> None:
    assert accept(POLYGLOT, mood=value).parameters["mood"] == sent


@pytest.mark.parametrize(
    ("voice", "fields", "sent"),
    [
        ("default", {}, "en"),
        ("canary", {}, "pt"),
        ("canary", {"language": "fr"}, "fr"),
        ("jackdaw", {}, "fr"),
        ("jackdaw", {"language": "zh"}, "zh"),
        ("budgie", {"language": "zh-CN"}, "zh"),
    ],
)
def test_the_language_is_the_requests_or_else_the_voices_own(voice: str, fields: dict[str, Any], sent: str) -> None:
    assert accept(POLYGLOT, voice=voice, **fields).parameters["language"] == sent


def test_an_engine_without_languages_gets_none() -> None:
    assert accept(voice="canary").parameters == {}
    assert accept(voice="jackdaw").parameters == {}


@pytest.mark.parametrize("name", CARDS)
def test_every_engine_gets_a_language_if_it_has_a_choice_of_them(name: str) -> None:
    language = CARDS[name].parameter("language")
    only = language.only if isinstance(language, Choice) else None
    assert accept(CARDS[name]).parameters == ({"language": only or "en"} if language else {})


def test_an_engine_of_one_language_takes_no_other() -> None:
    pack = CARDS["multilingual-pt-br"]
    assert accept(pack, voice="clone").parameters == {"language": "pt"}
    assert accept(pack, language="pt-BR").parameters == {"language": "pt"}
    error = refuse(pack, language="fr")
    assert error.message == "language must be one of pt"
    assert (error.param, error.code) == ("language", "invalid_parameter")


def test_a_text_of_just_the_limit() -> None:
    assert accept(text="word " * 2).text == "word word"
    assert accept(text="\U0001f600" * 9 + "a").text == "a"


@pytest.mark.parametrize(
    "model", [*OPENAI_MODELS, "tts-1-1106", "tts-1-hd-1106", "gpt-4o-mini-tts-2025-12-15", "parrot"]
)
def test_models_of_openai_are_accepted_with_a_date(model: str) -> None:
    assert validator().knows_model(model)
    assert accept(model=model).text == "Hello."


@pytest.mark.parametrize(
    "model", ["tts-1-", "tts-1-25", "gpt-4o-mini-tts-2025-12", "gpt-4o-2025-12-15", "parrot-2025-12-15"]
)
def test_no_other_dated_name_is_a_model(model: str) -> None:
    with pytest.raises(ModelNotFoundError, match=model):
        accept(model=model)


# What is refused


def test_a_text_over_the_limit() -> None:
    error = refuse(text="a" * 11)
    assert error.message == "text has 11 characters; the limit is 10"
    assert (error.param, error.code) == ("text", "text_too_long")


def test_a_text_over_the_limit_under_openais_name() -> None:
    body = OpenAISpeechBody.model_validate({"model": "tts-1", "input": "a" * 11, "voice": "alloy"})
    with pytest.raises(InvalidRequestError, match="input has 11 characters") as caught:
        validator().validate(body)
    assert caught.value.param == "input"


def test_a_text_may_be_longer_than_one_utterance_of_the_engine() -> None:
    assert accept(text="So it is X").text == "So it is X"
    error = refuse(text="So it is, X")
    assert error.message == "text has 11 characters; the limit is 10"
    assert (error.param, error.code) == ("text", "text_too_long")


def test_an_unknown_model() -> None:
    error = refuse(model="finch")
    assert isinstance(error, ModelNotFoundError)
    assert error.param == "model"
    assert "there are: parrot, tts-1" in error.message


@pytest.mark.parametrize("field", ["voice", "character"])
def test_an_unknown_voice(field: str) -> None:
    error = refuse(CARD, **{field: "nobody"})
    assert error.message == f"there is no voice 'nobody'; there are: {', '.join(REGISTRY.names)}"
    assert (error.param, error.code) == (field, "voice_not_found")


def test_a_broken_voice_is_not_just_unknown() -> None:
    assert refuse(voice="broken").message == "voice 'broken' cannot be used: voice.toml: no name"


@pytest.mark.parametrize("name", ["finch", "clone"])
def test_a_voice_that_this_engine_cannot_speak(name: str) -> None:
    error = refuse(voice=name)
    usable = "budgie, canary, crow, default, jackdaw, polly, rook"
    assert error.message == f"engine 'parrot' cannot speak voice '{name}'; it can speak: {usable}"
    assert (error.param, error.code) == ("voice", "voice_not_supported")


def test_an_engine_that_clones_speaks_clones() -> None:
    assert accept(CLONING, voice="clone").voice.name == "clone"
    more = {voice.name for voice in validator(CLONING).supported_voices} - {
        voice.name for voice in validator().supported_voices
    }
    assert more == {"clone"}


@pytest.mark.parametrize("value", [-0.1, 2.1, -(10**400), 10**400, "1", True, [], float("nan"), float("inf")])
def test_a_number_out_of_its_range(value: object) -> None:
    error = refuse(temperature=value)
    assert error.message == "temperature must be a number from 0 to 2"
    assert (error.param, error.code) == ("temperature", "invalid_parameter")


@pytest.mark.parametrize("value", [0, 1001, 1.5, 2.0, "5", True])
def test_a_whole_number_out_of_its_range(value: object) -> None:
    error = refuse(top_k=value)
    assert error.message == "top_k must be a whole number from 1 to 1000"
    assert (error.param, error.code) == ("top_k", "invalid_parameter")


@pytest.mark.parametrize(
    ("card", "voice", "fields", "fault"),
    [
        (CARD, "crow", {}, "temperature must be a number from 0 to 2"),
        (CARD, "crow", {"temperature": 1.0}, "temperature must be a number from 0 to 2"),
        (POLYGLOT, "rook", {}, "mood must be one of Calm, sad"),
    ],
)
@pytest.mark.parametrize("field", ["voice", "character"])
def test_a_voice_with_a_default_that_does_not_fit(
    card: EngineCard, voice: str, fields: dict[str, Any], fault: str, field: str
) -> None:
    error = refuse(card, **{field: voice}, **fields)
    assert error.message == f"voice '{voice}' cannot be used with engine 'parrot': in its voice.toml, {fault}"
    assert (error.param, error.code) == (field, "voice_not_supported")


def test_a_parameter_of_a_voice_that_the_engine_lacks_is_ignored() -> None:
    assert accept(voice="rook").parameters == {}


def test_a_voice_of_a_language_that_the_engine_lacks_is_not_given_another() -> None:
    error = refuse(POLYGLOT, voice="budgie")
    assert error.message == (
        "voice 'budgie' speaks 'cs', which engine 'parrot' does not: send language, one of en, fr, pt, zh"
    )
    assert (error.param, error.code) == ("language", "invalid_parameter")


@pytest.mark.parametrize(
    "value",
    [
        *["es-419", "fr-", "french", "f", "", " fr", "fr\n", "en_US.UTF-8", "fr--CA", "fr-é", "f" * 10_000],
        *[1, True, ["fr"], {"fr": "fr"}],
    ],
)
def test_values_that_are_no_language(value: object) -> None:
    error = refuse(POLYGLOT, language=value)
    assert error.message == "language must be one of en, fr, pt, zh"
    assert (error.param, error.code) == ("language", "invalid_parameter")


@pytest.mark.parametrize("value", ["glad", "sad-GB", "cal", "", True, 0, ["sad"]])
def test_values_that_are_no_choice(value: object) -> None:
    error = refuse(POLYGLOT, mood=value)
    assert error.message == "mood must be one of Calm, sad"
    assert (error.param, error.code) == ("mood", "invalid_parameter")


def test_a_parameter_that_this_engine_lacks() -> None:
    error = refuse(exaggeration=0.5)
    assert error.message == (
        "unknown field 'exaggeration'; this request takes speed, seed, priority, deadline_ms, normalize, text, "
        "character, voice, model, format, stream, "
        "and the parameters of engine 'parrot': temperature, top_k"
    )
    assert (error.param, error.code) == ("exaggeration", "unknown_parameter")


async def test_past_the_limit_of_waiting_texts_a_long_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "MAX_WAITING_TEXTS", 0)
    long_texts = RequestValidator(CARD, REGISTRY, max_characters=10 * MAX_LOOP_CHARACTERS)
    with pytest.raises(QueueFullError) as refused:
        await long_texts.validate_for_client(TtsBody(text="a " * MAX_LOOP_CHARACTERS))
    assert refused.value.message == "too many long texts are being prepared; try again later"
    assert refused.value.retry_after
