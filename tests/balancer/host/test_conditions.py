from __future__ import annotations

import pytest
from pydantic import ValidationError

from balancer.host.conditions import Conditions


class Drink(Conditions):
    kind: str
    litres: float = 1.0
    hot: bool = False


def test_the_differences_of_conditions() -> None:
    tea = Drink(kind="tea", hot=True)
    assert tea.differences(tea) == ()
    assert tea.differences(Drink(kind="water")) == ("kind", "hot")


def test_conditions_of_another_version_are_refused() -> None:
    with pytest.raises(ValidationError):
        Drink.model_validate_json('{"kind": "tea", "sugar": true}')
