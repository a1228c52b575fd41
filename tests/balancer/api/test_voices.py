"""The list of voices of a running server, and changes to the voices while it runs, by operators over HTTP, too."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from balancer.access.api_keys import ApiKey, Role, digest_of, new_key, write_keys
from tests.support.harness import TIMEOUT, Server, serve_stub, wait_until
from tests.support.recordings import record, speech
from voices import voice_editor
from voices.conditionals_cache import cache_file, clip_digest
from voices.registry import Consent, Registry
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
    assert listing.keys() == {"object", "engine", "data", "voices", "engines"}
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


# Operators

VOICES = "/v1/audio/voices"
ADA = {"name": "Zoë", "consent": "Zoë, by e-mail"}


@pytest.fixture(scope="module")
def guarded(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, httpx.Client]]:
    """A balancer with API keys, and an operator's client of it."""
    secret = new_key()
    keys = tmp_path_factory.mktemp("keys") / "keys.json"
    write_keys(keys, [ApiKey(name="ops", digest=digest_of(secret), role=Role.OPERATOR)])
    with (
        serve_stub(engine="turbo", voices_dir=folder, keys_file=keys, spool_mib=256) as server,
        httpx.Client(base_url=server.url, headers={"X-API-Key": secret}, timeout=TIMEOUT, trust_env=False) as client,
    ):
        yield server, client


@pytest.fixture
def operator(guarded: tuple[Server, httpx.Client], folder: Path) -> Iterator[httpx.Client]:
    """Its voices besides `default` are removed in the end."""
    yield guarded[1]
    for own in folder.iterdir():
        if own.name != "default":
            shutil.rmtree(own)


def add(operator: httpx.Client, clip: Path, **fields: Any) -> httpx.Response:
    # A name that would do harm, if it were used.
    return operator.post(VOICES, data=ADA | fields, files={"clip": ("../../../etc/passwd\x00.wav", clip.read_bytes())})


def refused(response: httpx.Response, status: int, code: str) -> str:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["code"] == code
    message: str = error["message"]
    return message


def content(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_an_operator_adds_a_voice_that_can_be_spoken_at_once(operator: httpx.Client, folder: Path, clip: Path) -> None:
    before = date.today()
    added = add(operator, clip, aliases=["zo", "Smith, Z"], description="Calm", language="en-GB")
    assert added.status_code == 201, added.text
    assert operator.post("/tts", json={"text": "Hello.", "voice": "SMITH, z"}).status_code == 200
    assert "Zoë" in [voice["name"] for voice in operator.get(VOICES).json()["data"]]
    details = added.json()
    consent = details.pop("consent")
    assert (consent["givenBy"], consent["note"]) == ("Zoë, by e-mail", "")
    assert before <= date.fromisoformat(consent["givenOn"]) <= date.today()
    measured = details.pop("clip")
    assert (measured["seconds"], measured["sampleRate"], measured["levelDbfs"]) == (6.0, 24000, -17.7)
    checks = {check["subject"]: check["passed"] for check in details.pop("checks")}
    assert checks == dict.fromkeys(("length", "level", "noise", "clipping", "sample rate"), True)
    assert details == {
        "id": "Zoë",
        "name": "Zoë",
        "object": "voice",
        "description": "Calm",
        "language": "en-GB",
        "aliases": ["zo", "Smith, Z"],
        "synthetic": False,
        "cloned": True,
        "folder": details["folder"],
        "parameters": {},
        "engines": CLONING,
        "faults": [],
        "notes": [],
    }
    assert (folder / details["folder"] / "reference.wav").read_bytes() == clip.read_bytes()
    for name in ("zoË", "zo", details["folder"]):
        assert operator.get(f"{VOICES}/{name}").json() == added.json()


def test_consent_is_on_record(operator: httpx.Client, folder: Path, clip: Path) -> None:
    assert add(operator, clip, name="ada", consent_date="2026-01-31").status_code == 201
    consent = Registry.load(folder).resolve("ada").consent
    assert consent == Consent(given_by="Zoë, by e-mail", given_on=date(2026, 1, 31))
    assert add(operator, clip, name="robot", consent="", synthetic="true").status_code == 201
    robot = Registry.load(folder).resolve("robot")
    assert (robot.consent, robot.synthetic) == (None, True)


def test_an_operator_removes_a_voice_with_its_conditionals(
    guarded: tuple[Server, httpx.Client], operator: httpx.Client, folder: Path, clip: Path
) -> None:
    assert add(operator, clip, name="ada").status_code == 201
    cached = cache_file(guarded[0].log.parent / "cache", "model", clip_digest(clip))
    cached.parent.mkdir(parents=True)
    cached.touch()
    removed = operator.delete(f"{VOICES}/ADA")
    assert (removed.status_code, removed.json()) == (200, {"id": "ADA", "object": "voice", "deleted": True})
    assert not cached.exists()
    assert not (folder / "ada").exists()
    response = operator.post("/tts", json={"text": "Hello.", "voice": "ada"})
    assert response.json()["error"]["code"] == "voice_not_found"
    refused(operator.get(f"{VOICES}/ada"), 404, "voice_not_found")
    refused(operator.delete(f"{VOICES}/ada"), 404, "voice_not_found")


def test_a_voice_is_replaced_only_on_purpose(operator: httpx.Client, folder: Path, clip: Path, tmp_path: Path) -> None:
    other = record(tmp_path / "other.flac", speech(7))
    assert add(operator, clip, name="ada").status_code == 201
    assert "replace it (`replace`)" in refused(add(operator, other, name="Ada"), 409, "voice_exists")
    refused(add(operator, other, name="bob", aliases=["ALLOY"]), 409, "voice_exists")
    assert add(operator, other, name="ada", replace="true").json()["clip"]["seconds"] == 7.0
    assert content(folder / "ada") == ["reference.flac", "voice.toml"]


def test_the_voice_of_requests_without_one_stays(operator: httpx.Client, folder: Path) -> None:
    assert "cannot be removed" in refused(operator.delete(f"{VOICES}/default"), 400, "invalid_request")
    assert (folder / "default" / "voice.toml").exists()
    assert operator.get(f"{VOICES}/alloy").json()["clip"] is None


@pytest.mark.parametrize("name", ["..", "%2e%2e", "%2e%2e%2fada", ".new-x", "%00", "%0a", "a" * 500, "%ff", "ada%2f"])
def test_no_name_in_a_path_reaches_the_file_system(operator: httpx.Client, folder: Path, clip: Path, name: str) -> None:
    assert add(operator, clip, name="ada").status_code == 201
    before = content(folder.parent / folder.name)
    for method in ("GET", "DELETE"):
        assert operator.request(method, f"{VOICES}/{name}").status_code in {404, 405}
    assert content(folder) == before


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"consent": " "}, "cloning a person's voice needs their consent"),
        ({"consent": "", "synthetic": "true", "consent_date": "2026-01-31"}, "consent_date needs consent"),
        ({"consent_date": "31.1.2026"}, "consent_date: "),
        ({"consent": "a\x00b"}, "consent: a control character"),
        ({"synthetic": "perhaps"}, "synthetic: "),
        ({"name": " "}, "name: is empty"),
        ({"name": "a\nb"}, "name: has a control character"),
        ({"name": "a" * 150}, "name: has 150 characters"),
        ({"name": ["a", "b"]}, "name: is there twice"),
        ({"language": "English"}, "language: "),
        ({"aliases": [" "]}, "aliases.0: is empty"),
        ({"aliases": ["a"] * 51}, "aliases: "),
        ({"description": "a" * 1001}, "description: "),
        ({"reference": "../default/voice.toml"}, "reference: "),
        ({"consent": "a" * 20_000}, "the form cannot be read: "),
    ],
    ids=str,
)
def test_fields_that_are_refused(
    operator: httpx.Client, folder: Path, clip: Path, fields: dict[str, Any], message: str
) -> None:
    response = add(operator, clip, **fields)
    assert response.status_code == 400, response.text
    assert message in response.json()["error"]["message"]
    assert content(folder) == ["default", "default/voice.toml"]


def test_a_name_with_a_slash_is_a_name(operator: httpx.Client, folder: Path, clip: Path) -> None:
    name = "Ada / <b>Bo</b>"
    assert add(operator, clip, name=name).status_code == 201
    path = f"{VOICES}/{quote(name, safe='')}"
    assert operator.get(path).json()["name"] == name
    assert operator.delete(path).status_code == 200
    assert content(folder) == ["default", "default/voice.toml"]


def test_a_bad_recording_is_refused_with_all_its_defects(operator: httpx.Client, folder: Path, tmp_path: Path) -> None:
    bad = record(tmp_path / "bad.wav", speech(2, peak=0.005, rate=8000), rate=8000)
    lines = refused(add(operator, bad), 400, "clip_refused").splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "the recording cannot be a reference clip:",
        "  - it is too short",
        "  - it is too quiet",
        "  - its sample rate is 8000 Hz",
    ]
    assert content(folder) == ["default", "default/voice.toml"]


@pytest.mark.parametrize("sound", [b"", b"no sound", b"#EXTM3U\nfile:///etc/passwd\n", b"RIFF" + b"\xff" * 50_000])
def test_hostile_files_are_refused(operator: httpx.Client, folder: Path, tmp_path: Path, sound: bytes) -> None:
    (tmp_path / "clip.wav").write_bytes(sound)
    message = refused(add(operator, tmp_path / "clip.wav"), 400, "clip_refused")
    assert message.startswith("the recording ")
    assert "/" not in message.replace("://", "")
    assert content(folder) == ["default", "default/voice.toml"]


def test_a_recording_whose_file_is_damaged_later_has_a_fault(operator: httpx.Client, folder: Path, clip: Path) -> None:
    assert add(operator, clip, name="ada").status_code == 201
    (folder / "ada" / "reference.wav").write_bytes(b"no sound")
    details = operator.get(f"{VOICES}/ada").json()
    assert details["clip"] is None
    assert details["faults"][0].startswith("the recording ")


def test_a_folder_that_cannot_be_read_is_the_servers_fault(operator: httpx.Client, folder: Path, clip: Path) -> None:
    away = folder.rename(folder.with_name(f"{folder.name}-away"))
    try:
        for response in (add(operator, clip), operator.get(f"{VOICES}/ada"), operator.delete(f"{VOICES}/ada")):
            refused(response, 503, "voices_unavailable")
            assert response.headers["Retry-After"]
    finally:
        away.rename(folder)
    assert content(folder) == ["default", "default/voice.toml"]
