"""`chorus voices` and its subcommands: mostly in this process, one on its own terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from typer.testing import Result

from tests.support.cli import clean_shell, invoke
from tests.support.harness import ROOT, TIMEOUT, Server, environment, serve_stub, start_balancer
from tests.support.recordings import record, speech
from voices import clips
from voices.conditionals_cache import cache_file, clip_digest
from voices.registry import Consent, Registry
from worker.cards import CARDS

CHORUS = str(Path(sys.executable).with_name("chorus"))
CLONING = ", ".join(name for name, card in CARDS.items() if card.clones_voices)
ADA = ["--consent", "Ada, by e-mail"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve_stub() as server:
        yield server


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of voices with `default` in it; a wide terminal, no other variables."""
    own = tmp_path / "voices" / "default"
    own.mkdir(parents=True)
    (own / "voice.toml").write_text('name = "default"\nengine = "*"\naliases = ["alloy"]\nsynthetic = true\n')
    clean_shell(monkeypatch)
    monkeypatch.setenv("CHORUS_VOICES_DIR", str(own.parent))
    return own.parent


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(record(tmp_path_factory.mktemp("clips") / "clip.flac", speech(6)))


def run(*arguments: str, stdin: str = "", **variables: str) -> Result:
    return invoke("voices", *arguments, stdin=stdin, **variables)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Without a subcommand


def test_voices_of_a_server(server: Server) -> None:
    for result in (run("--url", server.url), run(CHORUS_URL=server.url)):
        assert result.exit_code == 0
        assert "default" in result.stdout
        assert "alloy, ash, ballad" in result.stdout
        assert "The running engine's own voice" in result.stdout


def test_a_description_is_shown_without_markup(run_dir: Path, folder: Path) -> None:
    (folder / "default" / "voice.toml").write_text('name = "default"\nengine = "*"\ndescription = "[/] [red]hot"\n')
    with start_balancer(run_dir, ready=0, voices_dir=folder) as url:
        assert "[/] [red]hot" in run("--url", url).stdout
    assert "[/] [red]hot" in run("show", "default").stdout


# add


def test_add(folder: Path, clip: str) -> None:
    result = run(
        *["add", "ada", clip, *ADA, "--consent-date", "2026-01-31", "--description", "Calm"],
        *["--language", "en-GB", "--alias", "al", "--alias", "countess"],
    )
    contrast = clips.inspect(Path(clip)).contrast
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.splitlines() == [
        "voice ada: 6.0 s, 6.0 s of it speech, at 24000 Hz, -18 dBFS, peak 0.30, 0.00% clipped",
        "  length: 6.0 s, 6.0 s of speech in the part that is used (good)",
        "  level: speech at -18 dBFS (good)",
        f"  noise: loud and soft parts differ by {contrast:.0f} dB (good)",
        "  clipping: 0.00% of its samples at full scale (good)",
        "  sample rate: 24000 Hz (good)",
        f"a running server offers it within 1 s; supported by: {CLONING}",
    ]
    ada = Registry.load(folder).resolve("countess")
    assert ada.consent == Consent(given_by="Ada, by e-mail", given_on=date(2026, 1, 31))
    assert (ada.name, ada.description, ada.language, ada.aliases, ada.reference, ada.synthetic) == (
        *("ada", "Calm", "en-GB", ("al", "countess"), "reference.flac"),
        False,
    )


def test_the_date_of_consent_is_today_by_default(folder: Path, clip: str) -> None:
    before = date.today()
    assert run("add", "ada", clip, *ADA).exit_code == 0
    consent = Registry.load(folder).resolve("ada").consent
    assert consent is not None
    assert before <= consent.given_on <= date.today()


def test_a_synthetic_voice_needs_no_consent(folder: Path, clip: str) -> None:
    assert run("add", "robot", clip, "--synthetic").exit_code == 0
    assert Registry.load(folder).resolve("robot").synthetic


@pytest.mark.parametrize("consent", [[], ["--consent", ""], ["--consent", "  "]])
def test_a_persons_voice_needs_consent(folder: Path, clip: str, consent: list[str]) -> None:
    result = run("add", "ada", clip, *consent)
    assert result.exit_code == 1
    assert result.stderr.startswith("chorus: cloning a person's voice needs their consent: ")
    assert "--consent" in result.stderr
    assert "--synthetic" in result.stderr
    assert names(folder) == ["default"]


def test_all_defects_of_a_recording_are_reported(folder: Path, tmp_path: Path) -> None:
    bad = str(record(tmp_path / "bad.wav", speech(2, peak=0.005, rate=8000), rate=8000))
    result = run("add", "ada", bad, *ADA)
    assert result.exit_code == 1
    assert [line.split(",")[0] for line in result.stderr.splitlines()] == [
        f"chorus: {bad} cannot be a reference clip:",
        "  - it is too short",
        "  - it is too quiet",
        "  - its sample rate is 8000 Hz",
    ]
    assert names(folder) == ["default"]


def test_a_long_recording_is_noted(clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "LONG_SECONDS", 5.0)
    result = run("add", "ada", clip, *ADA)
    assert result.exit_code == 0
    assert "note: it lasts 6 s, and only its first 10 to 15 s are used" in result.stderr


def test_a_recording_that_is_much_too_long_is_refused(folder: Path, clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "MAX_ANALYSED_SECONDS", 6.0)
    result = run("add", "ada", clip, *ADA)
    assert result.exit_code == 1
    assert "cut it to these" in result.stderr
    assert names(folder) == ["default"]


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/full"])
def test_a_device_is_no_recording(folder: Path, tmp_path: Path, device: str) -> None:
    (tmp_path / "clip.wav").symlink_to(device)
    result = run("add", "ada", str(tmp_path / "clip.wav"), *ADA)
    assert result.exit_code == 1
    assert "Not a regular file" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([" "], "voice ' ' cannot be added: name: is empty; 'narrator' would do"),
        (["default"], "there is a voice 'default' already; replace it (`replace`)"),
        (["alloy"], "'alloy' is a name or alias of voice 'default' already"),
        (["ada", "--alias", "alloy"], "'alloy' is a name or alias of voice 'default' already"),
        (["ada", "--language", "English"], "voice 'ada' cannot be added: language: "),
    ],
)
def test_what_cannot_be_added(folder: Path, clip: str, arguments: list[str], message: str) -> None:
    result = run("add", arguments[0], clip, *arguments[1:], *ADA)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"chorus: {message}")
    assert names(folder) == ["default"]


def test_no_recording(folder: Path) -> None:
    result = run("add", "ada", "absent.wav", *ADA)
    assert (result.exit_code, result.stderr) == (1, "chorus: there is no file absent.wav\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--synthetic", "--consent-date", "2026-01-31"],
        [*ADA, "--consent-date", "31.1.2026"],
        [*ADA, "--consent-date", "2026-02-30"],
    ],
)
def test_a_wrong_date_is_a_wrong_command_line(folder: Path, clip: str, arguments: list[str]) -> None:
    result = run("add", "ada", clip, *arguments)
    assert result.exit_code == 2
    assert "--consent" in result.stderr
    assert names(folder) == ["default"]


def test_replace(folder: Path, clip: str, tmp_path: Path) -> None:
    assert run("add", "ada", clip, *ADA).exit_code == 0
    other = str(record(tmp_path / "other.mp3", speech(7)))
    refused = run("add", "ada", other, *ADA)
    assert refused.exit_code == 1
    assert refused.stderr.startswith("chorus: there is a voice 'ada' already")
    assert run("add", "ada", other, "--synthetic", "--replace").exit_code == 0
    assert names(folder / "ada") == ["reference.mp3", "voice.toml"]
    assert names(folder) == ["ada", "default"]


def test_another_folder(folder: Path, clip: str, tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    assert run("add", "ada", clip, *ADA, "--voices-dir", str(tmp_path / "others")).exit_code == 0
    assert (names(tmp_path / "others"), names(folder)) == (["ada"], ["default"])
    for arguments in (["add", "ada", clip, *ADA], ["show", "ada"], ["remove", "ada", "--yes"]):
        result = run(*arguments, "--voices-dir", "absent")
        assert result.exit_code == 1
        assert result.stderr.startswith("chorus: there is no folder of voices at ")


def test_an_invalid_setting(clip: str) -> None:
    result = run("show", "default", CHORUS_PROT="1")
    assert result.exit_code == 1
    assert result.stderr.startswith("chorus: CHORUS_PROT is no setting")


def test_a_name_with_capitals_spaces_and_accents(folder: Path, clip: str) -> None:
    assert run("add", "Zoë [b]O'Neil[/]", clip, *ADA, "--alias", "[red]Zo").exit_code == 0
    shown = run("show", "ZOË [B]o'neil[/]")
    assert shown.exit_code == 0
    assert "Zoë [b]O'Neil[/]" in shown.stdout
    with serve_stub(engine="turbo", voices_dir=folder) as server:
        listed = run("--url", server.url).stdout
    assert "Zoë [b]O'Neil[/]" in listed
    assert "[red]Zo" in listed
    assert run("remove", "zoë [b]o'neil[/]", "--yes").exit_code == 0
    assert names(folder) == ["default"]


# show


def test_show(folder: Path, clip: str) -> None:
    run("add", "ada", clip, *ADA, "--consent-date", "2026-01-31", "--alias", "al", "--description", "Calm")
    with (folder / "ada" / "voice.toml").open("a") as toml:
        toml.write('note = "The letter is in the safe"\n[parameters]\ntemperature = 0.6\n')
    result = run("show", "al")
    assert (result.exit_code, result.stderr) == (0, "")
    shown = dict(line.rstrip().split("  ", 1) for line in result.stdout.splitlines())
    assert {field: value.strip() for field, value in shown.items()} == {
        "voice": "ada",
        "description": "Calm",
        "language": "en",
        "aliases": "al",
        "recording": "reference.flac",
        "parameters": "temperature = 0.6",
        "synthetic": "no",
        "consent": "Ada, by e-mail, on 2026-01-31",
        "consent's note": "The letter is in the safe",
        "folder": str(folder / "ada"),
        "supported by": CLONING,
        "sound": "6.0 s, 6.0 s of it speech, at 24000 Hz, -18 dBFS, peak 0.30, 0.00% clipped",
    }


def test_show_a_built_in_voice() -> None:
    result = run("show", "default")
    assert result.exit_code == 0
    assert "hibari, chatterbox, turbo" in result.stdout
    assert "sound" not in result.stdout


def test_show_a_recording_with_defects(folder: Path, clip: str, tmp_path: Path) -> None:
    run("add", "ada", clip, "--synthetic")
    reference = folder / "ada" / "reference.flac"
    record(reference, speech(2))
    short = run("show", "ada")
    assert short.exit_code == 1
    assert short.stderr.startswith(
        "chorus: the recording of voice 'ada':\n  - it is too short, 2.0 s with 2.0 s of speech"
    )
    assert "at 24000 Hz" in short.stdout
    reference.write_text("hello")
    damaged = run("show", "ada")
    assert damaged.exit_code == 1
    assert "has no samples" in damaged.stderr
    assert "reference.flac" in damaged.stdout


def test_show_an_unknown_or_broken_voice(folder: Path) -> None:
    (folder / "broken").mkdir()
    for name, message in (
        ("bob", "there is no voice 'bob'; there are: default"),
        ("broken", "voice 'broken' cannot be"),
    ):
        result = run("show", name)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"chorus: {message}")


# remove


def test_remove(folder: Path, clip: str) -> None:
    run("add", "ada", clip, *ADA)
    result = run("remove", "ada", "--yes")
    assert (result.exit_code, result.stderr) == (0, "deleted voice ada\n")
    assert names(folder) == ["default"]


def test_remove_without_a_terminal_needs_yes(folder: Path, clip: str) -> None:
    run("add", "ada", clip, *ADA)
    result = run("remove", "ada", stdin="y\n")
    assert result.exit_code == 1
    assert "add --yes" in result.stderr
    assert names(folder) == ["ada", "default"]


@pytest.mark.parametrize(("answer", "left"), [(b"y\n", ["default"]), (b"n\n", ["ada", "default"]), (b"\n", None)])
def test_remove_asks_on_a_terminal(folder: Path, clip: str, answer: bytes, left: list[str] | None) -> None:
    run("add", "ada", clip, *ADA)
    master, slave = os.openpty()
    os.write(master, answer)
    variables = environment(voices_dir=folder)
    done = subprocess.run(
        [CHORUS, "voices", "remove", "ada"],
        check=False,
        cwd=ROOT,
        env=variables,
        stdin=slave,
        capture_output=True,
        timeout=TIMEOUT,
    )
    os.close(master)
    os.close(slave)
    assert b"Delete voice 'ada' and its recording" in done.stderr
    assert names(folder) == (left or ["ada", "default"])
    assert (done.returncode == 0) is (answer == b"y\n")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bob", "there is no voice 'bob'; there are: default"),
        ("alloy", "there is no voice 'alloy'; there are: default"),
        ("default", "voice 'default' cannot be removed"),
    ],
)
@pytest.mark.parametrize("yes", [["--yes"], []])
def test_what_cannot_be_removed(folder: Path, name: str, message: str, yes: list[str]) -> None:
    result = run("remove", name, *yes)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"chorus: {message}")
    assert names(folder) == ["default"]


@pytest.mark.parametrize("command", ["add", "remove", "show"])
def test_help(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "--voices-dir" in result.stdout


@pytest.mark.parametrize(
    "arguments", [["add"], ["add", "ada"], ["remove"], ["show"], ["show", "a", "b"], ["drop", "a"]]
)
def test_a_wrong_command_line(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


# Conditionals of a recording


@pytest.mark.parametrize("arguments", [["remove", "ada", "--yes"], ["add", "ada", "OTHER", *ADA, "--replace"]])
def test_conditionals_are_deleted_with_their_recording(
    arguments: list[str], folder: Path, clip: str, tmp_path: Path
) -> None:
    other = str(record(tmp_path / "other.wav", speech(7)))
    kept = cache_file(tmp_path / "cache", "some-model", clip_digest(Path(clip)))
    unrelated = kept.with_name("0.safetensors")
    kept.parent.mkdir(parents=True)
    for file in (kept, unrelated):
        file.touch()
    cache = str(tmp_path / "cache")
    assert run("add", "ada", clip, *ADA, CHORUS_CACHE_DIR=cache).exit_code == 0
    assert kept.exists()
    command = [other if argument == "OTHER" else argument for argument in arguments]
    assert run(*command, CHORUS_CACHE_DIR=cache).exit_code == 0
    assert (kept.exists(), unrelated.exists()) == (False, True)
