from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from balancer.access.api_keys import Role, digest_of, read_keys
from balancer.cli.main import app


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHORUS_KEYS_FILE", str(tmp_path / "keys.json"))
    return tmp_path / "keys.json"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["keys", *arguments])


def test_add_prints_the_key_and_stores_its_digest(file: Path) -> None:
    added = run("add", "shop", "--requests-per-minute", "30", "--voices", "ada, default", "--priority", "batch")
    assert added.exit_code == 0, added.output
    secret = added.stdout.strip()
    (key,) = read_keys(file)
    assert (key.name, key.digest) == ("shop", digest_of(secret))
    assert (key.requests_per_minute, key.voices, key.priority.value) == (30, ("ada", "default"), "batch")
    assert secret not in file.read_text()
    assert "requires an API key" in added.stderr
    assert "requires an API key" not in run("add", "other").stderr


def test_list_shows_no_digest(file: Path) -> None:
    run("add", "shop", "--characters-per-day", "1000")
    (row,) = json.loads(run("list", "--json").stdout)
    assert (row["name"], row["characters_per_day"]) == ("shop", 1000)
    assert "digest" not in row
    assert "characters_per_day 1000" in " ".join(run("list").stdout.split())


def test_the_role_of_a_key(file: Path) -> None:
    assert run("add", "shop").exit_code == 0
    assert run("add", "ops", "--role", "operator").exit_code == 0
    assert run("add", "other", "--role", "king").exit_code == 2
    assert [(key.name, key.role) for key in read_keys(file)] == [("shop", Role.CLIENT), ("ops", Role.OPERATOR)]
    assert [row["role"] for row in json.loads(run("list", "--json").stdout)] == ["client", "operator"]
    shown = run("list").stdout
    assert "client" in shown
    assert "operator" in shown


def test_revoke(file: Path) -> None:
    run("add", "shop")
    run("add", "other")
    assert run("revoke", "shop").exit_code == 0
    assert [key.name for key in read_keys(file)] == ["other"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add", "shop"], "there is already a key 'shop'"),
        (["add", "a b"], "name: String should match"),
        (["revoke", "none"], "there is no key 'none' in"),
    ],
)
def test_errors_are_reported(file: Path, arguments: list[str], message: str) -> None:
    run("add", "shop")
    failed = run(*arguments)
    assert failed.exit_code == 1
    assert message in failed.stderr


def test_a_damaged_file_is_not_overwritten(file: Path) -> None:
    file.write_text("{")
    failed = run("add", "shop")
    assert failed.exit_code == 1
    assert "cannot be read" in failed.stderr
    assert file.read_text() == "{"


def test_voices_of_a_key_may_have_commas_in_quotes(file: Path) -> None:
    assert run("add", "shop", "--voices", '"Smith, Zoë", ada,').exit_code == 0
    (key,) = read_keys(file)
    assert key.voices == ("Smith, Zoë", "ada")
