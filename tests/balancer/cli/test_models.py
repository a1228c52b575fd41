"""`chorus models`, in this process; test_download.py tests the downloads themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import Result

from balancer.cli import models as model_commands
from tests.support.checkpoint_files import safetensors, write
from tests.support.cli import clean_shell, invoke
from worker.cards import CARDS
from worker.checkpoints.catalogue import CHECKPOINTS, Checkpoint, DownloadError

TURBO = CHECKPOINTS["turbo"]
VE = "ve.safetensors"


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, a wide terminal, no variables."""
    clean_shell(monkeypatch, columns=300, prefixes=("HF_",))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def models(*arguments: str) -> Result:
    return invoke("models", *arguments)


def cached(hub: Path, checkpoint: Checkpoint = TURBO) -> Path:
    name = checkpoint.repository.replace("/", "--")
    return write(checkpoint, hub / f"models--{name}" / "snapshots" / checkpoint.revision)


def rows(output: str) -> dict[str, list[str]]:
    """The rows of a table: further cells by first cell."""
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines() if line.startswith("│")]
    return {first: rest for first, *rest in lines}


# list


@pytest.mark.parametrize("arguments", [[], ["list"]])
def test_the_list_has_every_engine(arguments: list[str]) -> None:
    result = models(*arguments)
    assert result.exit_code == 0
    listed = rows(result.stdout)
    assert listed.keys() == CARDS.keys() | {"meanflow"}
    assert listed["meanflow"] == listed["turbo"]
    assert listed["hibari"] == ["", "", "ready", "", "comes with the package"]
    assert listed["turbo"] == ["ResembleAI/chatterbox-turbo", "749d1c1a", "missing", "", ""]


def test_the_list_has_states_sizes_and_folders(hub: Path) -> None:
    turbo, nano = cached(hub), cached(hub, CHECKPOINTS["nano"])
    several = cached(hub, CHECKPOINTS["multilingual"])
    (nano / VE).write_bytes(safetensors()[:-1])
    listed = rows(models().stdout)
    assert listed["turbo"][2:] == ["ready", "36.3 kB", str(turbo)]
    assert listed["nano"][2:] == ["damaged", "36.3 kB", str(nano)]
    assert listed["multilingual"][2] == "ready"
    assert listed["multilingual-v3"][2] == "partial"
    assert listed["multilingual-v3"][4] == str(several)
    assert listed["chatterbox"][2:] == ["missing", "", ""]
    assert listed["meanflow"][2::2] == ["ready", str(turbo)]


def test_the_list_fits_a_narrow_terminal(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cached(hub)
    monkeypatch.setenv("COLUMNS", "80")
    output = models().stdout
    assert max(map(len, output.splitlines())) <= 80
    cells = [line.split("│")[-2].strip() for line in output.splitlines() if line.startswith("│")]
    assert str(folder) in "".join(cells)


# verify


def test_whole_weights(hub: Path) -> None:
    cached(hub)
    for arguments in ((), ("turbo",)):
        result = models("verify", *arguments)
        assert result.exit_code == 0, result.stderr
        assert result.stdout.count("turbo") == len(TURBO.files) + 1 + 1  # one is in a file's name
        assert "damaged" not in result.stdout
        assert result.stderr == ""


def test_damaged_weights(hub: Path) -> None:
    folder = cached(hub)
    cached(hub, CHECKPOINTS["nano"])
    (folder / VE).write_bytes(safetensors()[:-1])
    (folder / "vocab.json").unlink()
    result = models("verify")
    assert result.exit_code == 1
    assert re.search(
        rf"turbo +│ {VE} +│ damaged +│ 5\.\d kB +│ has 5,\d+ bytes where its header promises", result.stdout
    )
    assert re.search(r"turbo +│ vocab.json +│ missing +│ +│ is missing", result.stdout)
    assert result.stderr == (f"chorus: turbo's weights in {folder} are not whole; run: chorus models download turbo\n")
    assert models("verify", "nano").exit_code == 0


def test_missing_weights() -> None:
    result = models("verify")
    assert result.exit_code == 1
    assert result.stderr.startswith("chorus: no engine's weights are on this host; run: chorus models download ")
    result = models("verify", "turbo", "nano")
    assert result.exit_code == 1
    assert result.stderr == (
        "chorus: turbo's weights are not on this host; run: chorus models download turbo\n"
        "nano's weights are not on this host; run: chorus models download nano\n"
    )


def test_the_folder_of_model_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(TURBO, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    assert models("verify", "turbo", "--model-dir", "model").exit_code == 0
    (folder / VE).unlink()
    result = models("verify", "turbo", "--model-dir", "model")
    assert result.exit_code == 1
    assert f"turbo's weights in {folder} are not whole; put them there whole" in result.stderr
    result = models("verify", "turbo", "--model-dir", "nowhere")
    assert result.exit_code == 1
    assert f"the folder of turbo's weights, {tmp_path / 'nowhere'}, does not exist" in result.stderr


@pytest.mark.parametrize("engines", [[], ["turbo", "nano"]])
def test_model_dir_needs_one_engine(engines: list[str]) -> None:
    result = models("verify", *engines, "--model-dir", "model")
    assert result.exit_code == 2
    assert "name that engine" in result.stderr


def test_an_engine_that_comes_with_its_weights() -> None:
    result = models("verify", "hibari")
    assert result.exit_code == 0
    assert "hibari: comes with the package" in result.stderr
    assert models("download", "hibari").exit_code == 0


@pytest.mark.parametrize("command", ["verify", "download"])
def test_an_unknown_engine(command: str) -> None:
    result = models(command, "turbo", "nope")
    assert result.exit_code == 2
    assert "there is no engine 'nope'" in result.stderr


# download


def test_download_needs_an_engine() -> None:
    result = models("download")
    assert result.exit_code == 2
    assert "name the engines" in result.stderr


def test_engines_are_downloaded_one_by_one(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(checkpoint: Checkpoint, *, revision: str | None, announce: object) -> Path:
        asked.append((checkpoint.engine, revision))
        if checkpoint.engine == "chatterbox":
            raise DownloadError("no answer")
        return cached(hub, checkpoint)

    monkeypatch.setattr(model_commands, "download_checkpoint", fetch)
    result = models("download", "turbo", "chatterbox", "nano", "--revision", "main")
    assert result.exit_code == 1
    assert result.stderr.startswith("turbo: ready, 36.3 kB in ")
    assert result.stderr.endswith("\nchorus: no answer\n")
    assert asked == [("turbo", "main"), ("chatterbox", "main")]


@pytest.mark.parametrize("command", [[], ["list"], ["download"], ["verify"]])
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help(command: list[str], option: str) -> None:
    result = models(*command, option)
    assert result.exit_code == 0
    assert f"Usage: root models {' '.join(command)}".rstrip() in result.stdout
