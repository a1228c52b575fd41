"""Voices are added and removed completely or not at all."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.harness import ROOT
from tests.support.recordings import record, silence, speech
from voices import voice_editor
from voices.clips import ClipError
from voices.conditionals_cache import cache_file, clip_digest
from voices.registry import Consent, Registry, UnknownVoiceError, Voice, VoiceError
from voices.regular_files import read_regular_file

ADA = Consent(given_by="Ada", given_on=date(2026, 1, 31))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of voices with `default` in it."""
    own = tmp_path / "voices" / "default"
    own.mkdir(parents=True)
    (own / "voice.toml").write_text('name = "default"\nengine = "*"\naliases = ["alloy"]\n')
    return own.parent


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("clips") / "my recording.wav", speech(6))


@pytest.fixture(scope="session")
def other_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("clips") / "other.flac", speech(7))


def content(folder: Path) -> dict[str, bytes | None]:
    """All files and folders below a folder, hidden ones included."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def refused(folder: Path, name: str, clip: Path, **options: object) -> str:
    """The error of adding a voice, which must leave the folder unchanged."""
    before = content(folder)
    with pytest.raises((VoiceError, ClipError)) as caught:
        voice_editor.add(folder, name, clip, **({"synthetic": True} | options))  # type: ignore[arg-type]
    assert content(folder) == before
    return str(caught.value)


# Adding


def test_a_voice_of_a_person(folder: Path, clip: Path) -> None:
    voice = voice_editor.add(
        folder, "ada", clip, consent=ADA, description="Calm", language="en-GB", aliases=("al", "countess")
    )
    registry = Registry.load(folder)
    assert registry.problems == {}
    assert registry.resolve("countess") == registry.resolve("ada") == voice
    assert voice == Voice(
        name="ada",
        description="Calm",
        language="en-GB",
        reference="reference.wav",
        consent=ADA,
        aliases=("al", "countess"),
    )
    assert registry.reference(voice).read_bytes() == clip.read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["ada", "default"]


def test_a_synthetic_voice(folder: Path, clip: Path) -> None:
    voice_editor.add(folder, "robot", clip, synthetic=True)
    assert tomllib.loads((folder / "robot" / "voice.toml").read_text()) == {
        "name": "robot",
        "language": "en",
        "reference": "reference.wav",
        "synthetic": True,
    }


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("clip.mp3", ".mp3"), ("clip.flac", ".flac"), ("clip.ogg", ".ogg"), ("clip.m4a", ".m4a"), ("CLIP.WAV", ".wav")],
)
def test_the_clip_keeps_its_format(folder: Path, tmp_path: Path, name: str, suffix: str) -> None:
    voice = voice_editor.add(folder, "ada", record(tmp_path / name, speech(6)), synthetic=True)
    assert voice.reference == f"reference{suffix}"
    assert (folder / "ada" / voice.reference).read_bytes() == (tmp_path / name).read_bytes()


def test_others_may_read_it(folder: Path, clip: Path) -> None:
    voice_editor.add(folder, "ada", clip, synthetic=True)
    assert (folder / "ada").stat().st_mode == (folder / "default").stat().st_mode


@given(words=st.text(min_size=1, max_size=80))
def test_any_description_is_written_unchanged(tmp_path_factory: pytest.TempPathFactory, clip: Path, words: str) -> None:
    folder = tmp_path_factory.mktemp("voices")
    consent = Consent(given_by=words, given_on=date(2026, 1, 31), note=words)
    voice = voice_editor.add(folder, "ada", clip, consent=consent, description=words)
    assert Registry.load(folder).resolve("ada") == voice
    assert (voice.description, voice.consent) == (words, consent)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ada", {"synthetic": False}, "needs the speaker's consent on record"),
        ("", {}, "voice '' cannot be added: name: is empty; 'narrator' would do"),
        ("a\nda", {}, "name: has a control character (U+000A), and must be one printable line; 'a da' would do"),
        ("ada" * 40, {}, "name: has 120 characters, and may have 100; 'adaada"),
        (
            "ada\udce9",
            {},
            "name: has a byte that is not UTF-8 (U+DCE9), and must be one printable line; 'ada' would do",
        ),
        (
            "DEFAULT",
            {},
            "there is a voice 'default' already; replace it (`replace`), or use another name, such as 'DEFA",
        ),
        (" Alloy", {}, "'Alloy' is a name or alias of voice 'default' already; choose another, such as 'Alloy 2', or"),
        ("alloy", {"aliases": ("alloy-2",)}, "such as 'alloy-2', or"),
        ("ada", {"language": "English"}, "language: String should match"),
        ("ada", {"aliases": ("a", "\u200b")}, "aliases.1: has an invisible character (U+200B)"),
        ("ada", {"description": "\udce9"}, "must be UTF-8"),
        ("default", {}, "there is a voice 'default' already"),
        ("alloy", {}, "'alloy' is a name or alias of voice 'default' already"),
        ("alloy", {"replace": True}, "'alloy' is a name or alias of voice 'default' already"),
        ("ada", {"aliases": ("al", "alloy")}, "'alloy' is a name or alias of voice 'default' already"),
        ("ada", {"aliases": ("default",)}, "'default' is a name or alias of voice 'default' already"),
        ("ada", {"aliases": ("broken",)}, "'broken' is a name or alias of voice 'broken' already"),
        ("broken", {}, "there is a voice 'broken' already"),
    ],
)
def test_voices_that_cannot_be_added(
    folder: Path, clip: Path, name: str, options: dict[str, object], message: str
) -> None:
    (folder / "broken").mkdir()
    assert message in refused(folder, name, clip, **options)


def test_all_defects_of_the_clip_are_reported_at_once(folder: Path, tmp_path: Path) -> None:
    bad = record(tmp_path / "bad.wav", speech(1, peak=0.005, rate=8000), silence(1, rate=8000), rate=8000)
    lines = refused(folder, "ada", bad).splitlines()
    assert lines[0] == f"{bad} cannot be a reference clip:"
    assert [line.split(",")[0] for line in lines[1:]] == [
        "  - it is too short",
        "  - it is too quiet",
        "  - its sample rate is 8000 Hz",
    ]


def test_a_file_that_is_not_a_clip(folder: Path, tmp_path: Path) -> None:
    assert "there is no file" in refused(folder, "ada", tmp_path / "absent.wav")
    (tmp_path / "text.wav").write_text("hello")
    assert "cannot be decoded" in refused(folder, "ada", tmp_path / "text.wav")


def test_a_missing_folder_of_voices(tmp_path: Path, clip: Path) -> None:
    with pytest.raises(VoiceError, match="there is no folder of voices"):
        voice_editor.add(tmp_path / "absent", "ada", clip, synthetic=True)


def test_a_file_in_the_way_stays(folder: Path, clip: Path) -> None:
    (folder / "ada").write_text("mine")
    for replace in (False, True):
        assert refused(folder, "ada", clip, replace=replace).startswith(f"cannot write voice 'ada' in {folder}: ")


def test_a_voice_added_meanwhile_by_another_process_stays(
    folder: Path, clip: Path, other_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(path: Path, max_bytes: int) -> bytes:
        monkeypatch.undo()
        voice_editor.add(folder, "ada", other_clip, synthetic=True)
        return read_regular_file(path, max_bytes)

    monkeypatch.setattr(voice_editor, "read_regular_file", slowly)
    with pytest.raises(VoiceError, match=r"cannot write voice 'ada' in .*: Directory not empty"):
        voice_editor.add(folder, "ada", clip, synthetic=True)
    assert Registry.load(folder).resolve("ada").reference == "reference.flac"
    assert sorted(path.name for path in folder.iterdir()) == ["ada", "default"]


def test_a_full_disk_leaves_nothing_behind(folder: Path, clip: Path) -> None:
    code = f"""if True:
        import resource, sys
        from pathlib import Path
        from voices import voice_editor
        from voices.registry import VoiceError
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            voice_editor.add(Path({str(folder)!r}), "ada", Path({str(clip)!r}), synthetic=True)
        except VoiceError as error:
            print(error)
    """
    before = content(folder)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"cannot write voice 'ada' in {folder}: File too large\n"
    assert content(folder) == before


def test_a_folder_that_may_not_be_written(run_dir: Path, clip: Path) -> None:
    # Not below pytest's folder, which each run closes to other users.
    run_dir.chmod(0o755)
    clip = Path(shutil.copy(clip, run_dir))
    folder = run_dir / "voices"
    (folder / "bob").mkdir(parents=True)
    folder.chmod(0o555)
    code = f"""if True:
        import os
        from pathlib import Path
        from voices import voice_editor
        from voices.registry import VoiceError
        if os.getuid() == 0:
            os.seteuid(65534)
        for change in (
            lambda folder: voice_editor.add(folder, "ada", Path({str(clip)!r}), synthetic=True),
            lambda folder: voice_editor.remove(folder, "bob"),
        ):
            try:
                change(Path({str(folder)!r}))
            except VoiceError as error:
                print(error)
    """
    before = content(folder)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"cannot write voice 'ada' in {folder}: Permission denied",
        f"cannot remove voice 'bob' from {folder}: Permission denied",
    ]
    assert content(folder) == before
    folder.chmod(0o755)


# Replacing


def test_replace_the_clip_of_a_voice(folder: Path, clip: Path, other_clip: Path) -> None:
    voice_editor.add(folder, "ada", clip, synthetic=True, aliases=("al",))
    voice_editor.add(folder, "ada", other_clip, consent=ADA, aliases=("al", "countess"), replace=True)
    assert Registry.load(folder).resolve("countess").consent == ADA
    assert sorted(path.name for path in (folder / "ada").iterdir()) == ["reference.flac", "voice.toml"]
    assert sorted(path.name for path in folder.iterdir()) == ["ada", "default"]


def test_replace_adds_a_voice_that_does_not_exist(folder: Path, clip: Path) -> None:
    voice_editor.add(folder, "ada", clip, synthetic=True, replace=True)
    assert Registry.load(folder).names == ("ada", "default")


def test_a_broken_voice_can_be_replaced(folder: Path, clip: Path) -> None:
    (folder / "ada").mkdir()
    voice_editor.add(folder, "ada", clip, synthetic=True, replace=True)
    assert Registry.load(folder).names == ("ada", "default")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_the_old_voice_is_restored_if_the_new_one_cannot_replace_it(
    folder: Path, clip: Path, other_clip: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    voice_editor.add(folder, "ada", clip, synthetic=True)
    before = content(folder)
    rename = Path.rename

    def fail_for_the_new(self: Path, target: Path) -> Path:
        if target == folder / "ada" and self.parent.name.startswith(".new-"):
            assert not target.exists()
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new)
    with pytest.raises((VoiceError, KeyboardInterrupt)):
        voice_editor.add(folder, "ada", other_clip, synthetic=True, replace=True)
    assert content(folder) == before


def test_the_old_voice_is_never_deleted_before_the_new_one_is_there(
    folder: Path, clip: Path, other_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voice_editor.add(folder, "ada", clip, synthetic=True)
    rename = Path.rename

    def fail_twice(self: Path, target: Path) -> Path:
        if target == folder / "ada":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_twice)
    with pytest.raises(VoiceError, match="Input/output error"):
        voice_editor.add(folder, "ada", other_clip, synthetic=True, replace=True)
    (old,) = folder.glob(".old-ada-*")
    assert (old / "reference.wav").read_bytes() == clip.read_bytes()


# Names

NAMES = ["J. R. R. O'Neil-Smith", "Zoë", "日本", "../ada", "..", ".", "a/b", "CON", "~root", "a\\b", "🙂"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_any_printable_line(folder: Path, clip: Path, other_clip: Path, name: str) -> None:
    before, around = content(folder), set(folder.parent.iterdir())
    assert voice_editor.add(folder, f"  {name} ", clip, synthetic=True, aliases=("Ål  b",)).name == name
    assert Registry.load(folder).resolve("ål B").name == name
    (own,) = {path.name for path in folder.iterdir()} - {"default"}
    assert re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", own)
    assert set(folder.parent.iterdir()) == around
    assert f"there is a voice {name!r} already; replace it (`replace`)" in refused(folder, name.upper(), clip)
    voice_editor.add(folder, name.upper(), other_clip, synthetic=True, replace=True)
    assert sorted(path.name for path in folder.iterdir()) == sorted([own, "default"])
    voice_editor.remove(folder, name)
    assert content(folder) == before


def test_names_that_look_alike_have_folders_of_their_own(folder: Path, clip: Path) -> None:
    names = ("Zoe", "Zoë", "Zoe!", "Zoe.", "zoe ?", "日本", "日 本")
    for name in names:
        voice_editor.add(folder, name, clip, synthetic=True)
    assert set(Registry.load(folder).names) == {"default", *names}


# Removing


def test_a_voice_is_removed_completely(folder: Path, clip: Path) -> None:
    before = content(folder)
    voice_editor.add(folder, "ada", clip, synthetic=True)
    voice_editor.remove(folder, "ada")
    assert content(folder) == before


def test_a_broken_voice_can_be_removed(folder: Path) -> None:
    (folder / "ada").mkdir()
    voice_editor.remove(folder, "ada")
    assert [path.name for path in folder.iterdir()] == ["default"]


def test_a_voice_that_is_a_link_is_removed_without_its_target(folder: Path, tmp_path: Path, clip: Path) -> None:
    voice_editor.add(folder, "ada", clip, synthetic=True)
    elsewhere = (folder / "ada").rename(tmp_path / "elsewhere")
    (folder / "ada").symlink_to(elsewhere)
    voice_editor.remove(folder, "ada")
    assert [path.name for path in folder.iterdir()] == ["default"]
    assert (elsewhere / "voice.toml").exists()


@pytest.mark.parametrize("name", ["bob", "alloy", "", ".", "..", "../voices/ada", "ada/", "A da", ".new-x"])
def test_only_a_voice_can_be_removed(folder: Path, clip: Path, name: str) -> None:
    voice_editor.add(folder, "ada", clip, synthetic=True)
    (folder / ".new-x").mkdir()
    before = content(folder)
    with pytest.raises(UnknownVoiceError) as caught:
        voice_editor.remove(folder, name)
    assert str(caught.value) == f"there is no voice {name!r}; there are: ada, default"
    assert content(folder) == before


def test_conditionals_go_with_their_clip(folder: Path, clip: Path, other_clip: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first, second = (cache_file(cache, "model", clip_digest(file)) for file in (clip, other_clip))
    first.parent.mkdir(parents=True)
    for file in (first, second):
        file.touch()
    voice_editor.add(folder, "ada", clip, synthetic=True, cache=cache)
    assert (first.exists(), second.exists()) == (True, True)
    voice_editor.add(folder, "ada", other_clip, synthetic=True, replace=True, cache=cache)
    assert (first.exists(), second.exists()) == (False, True)
    voice_editor.remove(folder, "ada", cache=cache)
    assert not second.exists()


def test_the_default_voice_stays(folder: Path) -> None:
    with pytest.raises(VoiceError, match="voice 'default' cannot be removed"):
        voice_editor.remove(folder, "default")
    assert Registry.load(folder).names == ("default",)


def test_files_that_cannot_be_deleted_are_reported_and_hidden_from_the_registry(
    folder: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voice_editor.add(folder, "ada", clip, synthetic=True)

    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(shutil, "rmtree", fail)
    with pytest.raises(VoiceError, match=r"done, but .*\.old-ada-.* could not be deleted \(Input/output"):
        voice_editor.remove(folder, "ada")
    assert Registry.load(folder).names == ("default",)
