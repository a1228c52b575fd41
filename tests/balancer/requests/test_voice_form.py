from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError

from balancer.requests.voice_form import VoiceForm
from voices.registry import Consent

TODAY = date(2026, 11, 29)


def form(**fields: Any) -> VoiceForm:
    return VoiceForm.model_validate({"name": "ada"} | fields)


def test_consent_is_given_today_unless_the_form_says_when() -> None:
    assert form(consent=" Ada ").consent_on(TODAY) == Consent(given_by="Ada", given_on=TODAY)
    dated = form(consent="Ada", consent_date="2026-01-31")
    assert dated.consent_on(TODAY) == Consent(given_by="Ada", given_on=date(2026, 1, 31))


def test_a_synthetic_voice_may_do_without_consent() -> None:
    assert form(synthetic="true").consent_on(TODAY) is None
    assert form(synthetic="true", consent="Ada").consent_on(TODAY) == Consent(given_by="Ada", given_on=TODAY)


@pytest.mark.parametrize("fields", [{}, {"consent": " "}, {"synthetic": "false"}])
def test_the_voice_of_a_person_needs_consent(fields: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="needs their consent"):
        form(**fields)


def test_a_date_needs_consent() -> None:
    with pytest.raises(ValidationError, match="consent_date needs consent"):
        form(synthetic="true", consent_date="2026-01-31")


@pytest.mark.parametrize("field", ["consent", "description"])
@pytest.mark.parametrize("value", ["a\x00b", "\ud800", "a" * 1001])
def test_prose_is_printable_and_short(field: str, value: str) -> None:
    with pytest.raises(ValidationError, match=field):
        form(**({"consent": "Ada"} | {field: value}))
