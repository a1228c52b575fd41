"""The list of voices of a running server, and changes to the voices while it runs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.harness import Server, serve_stub, wait_until
from tests.support.recordings import record, speech
from voices import voice_editor
from worker.cards import CARDS

CLONING = [name for name, card in CARDS.items() if card.clones_voices]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="chorus-") as folder:
        own = Path(folder) / "default"
        own.mkdir()
        (own / "voice.toml").write_text('name = "default"\nengine = "*"\naliases = ["alloy"]\nsynthetic = true\n')
        yield Path(folder)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """A balancer with an engine that clones voices."""
    with serve_stub(engine="turbo", voices_dir=folder) as server:
        yield server


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("clips") / "clip.wav", speech(6))


def names(server: Server) -> list[str]:
    return [voice["name"] for voice in server.client.get("/v1/audio/voices").json()["data"]]


def refusal(server: Server, voice: str) -> str | None:
    response = server.client.post("/tts", json={"text": "Hello.", "voice": voice})
    if response.status_code == 200:
        return None
    code: str = response.json()["error"]["code"]
    return code


def test_voices_can_be_added_and_removed_while_the_server_runs(server: Server, folder: Path, clip: Path) -> None:
    assert refusal(server, "ada") == "voice_not_found"
    voice_editor.add(folder, "ada", clip, synthetic=True, aliases=("countess",))
    wait_until(lambda: refusal(server, "countess") is None)
    assert names(server) == ["ada", "default"]
    voice_editor.remove(folder, "ada")
    wait_until(lambda: refusal(server, "ada") == "voice_not_found")
    assert names(server) == ["default"]
    assert refusal(server, "alloy") is None


def test_a_new_voice_appears_in_the_list(server: Server, folder: Path, clip: Path) -> None:
    voice_editor.add(folder, "bob", clip, synthetic=True)
    wait_until(lambda: names(server) == ["bob", "default"])
    voice_editor.remove(folder, "bob")
    wait_until(lambda: names(server) == ["default"])


def test_the_voices_stay_usable_while_their_folder_is_missing(server: Server, folder: Path) -> None:
    away = folder.rename(folder.with_name(f"{folder.name}-away"))
    wait_until(lambda: refusal(server, "nobody") is not None and "remain in use" in server.log.read_text())
    assert refusal(server, "default") is None
    away.rename(folder)


def test_the_description_of_a_voice(server: Server, folder: Path, clip: Path) -> None:
    voice_editor.add(folder, "ada", clip, synthetic=True, description="Calm", language="en-GB", aliases=("al",))
    wait_until(lambda: "ada" in names(server))
    listing = server.client.get("/v1/audio/voices").json()
    shutil.rmtree(folder / "ada")
    assert listing.keys() == {"object", "engine", "data", "engines"}
    assert (listing["object"], listing["engine"]) == ("list", "turbo")
    ada, default = listing["data"]
    assert ada == {
        "id": "ada",
        "name": "ada",
        "object": "voice",
        "description": "Calm",
        "language": "en-GB",
        "aliases": ["al"],
        "synthetic": True,
        "cloned": True,
    }
    assert (default["name"], default["cloned"]) == ("default", False)
    assert listing["engines"] == {name: ["ada", "default"] if name in CLONING else ["default"] for name in CARDS}


def test_an_engine_that_does_not_clone_lists_no_cloned_voice(folder: Path, clip: Path) -> None:
    voice_editor.add(folder, "ada", clip, synthetic=True)
    with serve_stub(engine="hibari", voices_dir=folder) as server:
        listing = server.client.get("/v1/audio/voices").json()
        assert refusal(server, "ada") == "voice_not_supported"
    voice_editor.remove(folder, "ada")
    assert [voice["name"] for voice in listing["data"]] == ["default"]
    assert listing["engines"]["turbo"] == ["ada", "default"]
