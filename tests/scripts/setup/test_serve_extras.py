"""The extras that scripts/serve installs before it becomes `chorus serve`."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.support.machine import Machine
from worker.cards import CARDS

ROOT = Path(__file__).parents[3]


def test_it_works_through_a_symlink_from_another_folder_and_keeps_its_arguments(
    machine: Machine, tmp_path: Path
) -> None:
    link = tmp_path / "a link"
    link.symlink_to(machine.serve)
    served = machine.execute(link, "--port", "5001", "two words", "")
    assert served.stdout == "<serve><--port><5001><two words><>"
    assert served.returncode == 0


class TestEngine:
    @pytest.mark.parametrize("engine", CARDS)
    def test_installs_the_extra_of_its_card(self, machine: Machine, engine: str) -> None:
        extra = CARDS[engine].extra
        assert machine.execute(machine.serve, "--engine", engine).stdout == f"<serve><--engine><{engine}>"
        assert machine.recorded_calls() == ["venv", f".[{extra}]" if extra else "."]

    @pytest.mark.parametrize(
        ("words", "variable"),
        [
            (["--port", "5001", "--engine", "turbo"], None),
            (["--engine=turbo", "--port=5001"], None),
            ([], "turbo"),
            (["--engine", "turbo"], "hibari"),
            (["--engine=hibari", "--engine", "turbo"], None),
            (["--engine", "hibari", "--engine=turbo"], "hibari"),
        ],
    )
    def test_is_chosen_as_chorus_serve_chooses_it(
        self, machine: Machine, words: list[str], variable: str | None
    ) -> None:
        stub = {} if variable is None else {"CHORUS_ENGINE": variable}
        assert machine.execute(machine.serve, *words, **stub).returncode == 0
        assert machine.recorded_calls() == ["venv", ".[chatterbox]"]

    @pytest.mark.parametrize(
        ("words", "variable"),
        [
            (["--engine", "trubo"], None),
            (["--engine=turbo2"], None),
            (["--engine=multilingual-v1"], None),
            (["--engine=trubo"], "turbo"),
            (["--engine", "hibari"], "turbo"),
            (["--engine=turbo", "--engine", "hibari"], None),
            (["--engine"], None),
            (["turbo"], None),
            (["--engine="], None),
            ([], "Turbo"),
            ([], ""),
        ],
    )
    def test_an_unknown_engine_or_none_needs_no_extra(
        self, machine: Machine, words: list[str], variable: str | None
    ) -> None:
        stub = {} if variable is None else {"CHORUS_ENGINE": variable}
        served = machine.execute(machine.serve, *words, **stub)
        assert served.stdout == "".join(f"<{word}>" for word in ["serve", *words])
        assert machine.recorded_calls() == ["venv", "."]

    def test_every_extra_of_a_card_is_one_of_the_package(self) -> None:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert {card.extra for card in CARDS.values() if card.extra} <= extras.keys()
