"""The engines' cards: consistent in themselves and with each other."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from worker.cards import CARDS, LANGUAGE_PACKS, LANGUAGES, Choice, EngineCard, FlowModel, Parameter

PACKS = {pack.engine: pack.language for pack in LANGUAGE_PACKS}
CHATTERBOX = {"chatterbox", "turbo", "nano", "multilingual", "multilingual-v3", *PACKS}

each = pytest.mark.parametrize("card", CARDS.values(), ids=CARDS.keys())


def test_the_engines() -> None:
    assert CARDS.keys() == {"hibari"} | CHATTERBOX
    assert all(card.name == name for name, card in CARDS.items())
    assert len({card.description for card in CARDS.values()}) == len(CARDS)


@each
def test_a_card_is_complete(card: EngineCard) -> None:
    assert card.description.endswith(".")
    assert card.sample_rate == 24_000
    assert card.resident_bytes > 0
    assert card.shared_bytes >= 0
    assert 0 < card.segments.minimum < card.segments.maximum <= 400
    assert card.seconds_per_character > 0
    assert card.speed > 0


@each
def test_parameters_are_found_by_their_names(card: EngineCard) -> None:
    names = [parameter.name for parameter in card.parameters]
    assert len(set(names)) == len(names)
    assert all(card.parameter(parameter.name) is parameter for parameter in card.parameters)
    assert all(parameter.description for parameter in card.parameters)
    assert card.parameter("no such parameter") is None


@each
def test_a_default_is_within_its_range(card: EngineCard) -> None:
    for parameter in card.parameters:
        if isinstance(parameter, Parameter):
            limits = (parameter.minimum, parameter.default, parameter.maximum)
            assert parameter.minimum < parameter.maximum
            assert sorted(limits) == list(limits)
            assert not parameter.integer or all(float(limit).is_integer() for limit in limits)


@each
def test_a_flow_takes_upstreams_steps_by_default(card: EngineCard) -> None:
    assert all(1 <= flow.minimum <= flow.default == flow.maximum for flow in card.flows.values())
    assert bool(card.flows) is (card.name in CHATTERBOX) is (FlowModel.UPSTREAM in card.flows)
    assert (0 < card.flow_share < 1) is bool(card.flows)
    assert FlowModel.MEANFLOW not in card.flows or not card.tags, "Turbo and Nano have one of their own"


@each
def test_chatterbox_engines_need_an_extra_and_share_their_weights(card: EngineCard) -> None:
    member = card.name in CHATTERBOX
    assert card.extra == ("chatterbox" if member else None)
    assert card.clones_voices is member
    assert (card.shared_bytes > 2**30) is member
    # Past about 300 characters, upstream's users hear gibberish.
    assert (card.segments.maximum <= 300) is member


@each
def test_only_multilingual_engines_have_a_language(card: EngineCard) -> None:
    choices = [parameter for parameter in card.parameters if isinstance(parameter, Choice)]
    if card.name.startswith("multilingual"):
        languages = (PACKS[card.name],) if card.name in PACKS else LANGUAGES
        assert [(choice.name, choice.choices) for choice in choices] == [("language", languages)]
        assert choices[0].only == PACKS.get(card.name)
    else:
        assert choices == []


def test_the_languages() -> None:
    assert len(LANGUAGES) == 23
    assert list(LANGUAGES) == sorted(set(LANGUAGES))
    assert all(len(code) == 2 and code.isalpha() and code.islower() for code in LANGUAGES)
    assert "en" in LANGUAGES


def test_chatterbox_engines_differ_as_upstreams_do() -> None:
    defaults = {
        name: {parameter.name: parameter.default for parameter in card.parameters if isinstance(parameter, Parameter)}
        for name, card in CARDS.items()
    }
    assert defaults["turbo"] == defaults["nano"]
    assert defaults["turbo"].keys() == {"temperature", "top_p", "top_k", "repetition_penalty"}
    assert defaults["multilingual"] == defaults["chatterbox"] | {"repetition_penalty": 2.0}
    assert defaults["multilingual-v3"] == defaults["chatterbox"]
    assert all(defaults[pack] == defaults["multilingual-v3"] | {"top_p": 0.95} for pack in PACKS)


def test_cards_survive_json() -> None:
    for card in CARDS.values():
        assert EngineCard.model_validate_json(card.model_dump_json()) == card


def test_a_card_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        CARDS["hibari"].speed = 1.0  # type: ignore[misc]
