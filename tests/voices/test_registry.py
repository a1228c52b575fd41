"""Voices as their folders describe them, and everything that may be wrong with one."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.services.harness import ROOT
from voices.registry import Registry, UnknownVoiceError, VoiceError

SHIPPED = ROOT / "voices"

CLONED = 'reference = "clip.wav"\n[consent]\ngiven_by = "Ada"\ngiven_on = 2026-01-31\n'

OPENAI = ["alloy", "ash", "ballad", "coral", "echo", "fable", "nova", "onyx", "sage", "shimmer", "verse"]


def add(folder: Path, name: str, toml: str | bytes = 'engine = "*"\n', *, named: str | None = None) -> Path:
    """A folder of a voice; its `name` comes first in the file unless the bytes are given whole."""
    own = folder / name
    own.mkdir(parents=True)
    if isinstance(toml, str):
        toml = f'name = "{named if named is not None else name}"\n{toml}'.encode()
    (own / "voice.toml").write_bytes(toml)
    return own


def problem(folder: Path, name: str = "alice") -> str:
    registry = Registry.load(folder)
    assert name not in registry.voices
    return registry.problems[name]


# What is right


def test_a_built_in_voice(tmp_path: Path) -> None:
    add(tmp_path, "alice", 'engine = "hibari"\nlanguage = "en-GB"\naliases = ["al"]\nparameters = {warmth = 1}\n')
    registry = Registry.load(tmp_path)
    alice = registry.resolve("alice")
    assert registry.resolve("al") is alice
    assert (alice.language, alice.parameters) == ("en-GB", {"warmth": 1})
    assert alice.fits("hibari", clones_voices=False)
    assert not alice.fits("chatterbox", clones_voices=True)
    with pytest.raises(VoiceError, match="no reference clip"):
        registry.reference(alice)


def test_a_voice_of_any_engine(tmp_path: Path) -> None:
    add(tmp_path, "alice")
    alice = Registry.load(tmp_path).resolve("alice")
    assert alice.fits("hibari", clones_voices=False)
    assert alice.fits("chatterbox", clones_voices=True)


def test_a_cloned_voice(tmp_path: Path) -> None:
    clip = add(tmp_path, "alice", CLONED) / "clip.wav"
    clip.touch()
    registry = Registry.load(tmp_path)
    alice = registry.resolve("alice")
    assert registry.problems == {}
    assert registry.reference(alice) == clip
    assert alice.consent is not None
    assert (alice.consent.given_by, alice.consent.given_on) == ("Ada", date(2026, 1, 31))
    assert alice.fits("chatterbox", clones_voices=True)
    assert not alice.fits("hibari", clones_voices=False)


def test_a_made_up_clip_needs_nobodys_consent(tmp_path: Path) -> None:
    (add(tmp_path, "alice", 'reference = "clip.wav"\nsynthetic = true\n') / "clip.wav").touch()
    assert Registry.load(tmp_path).names == ("alice",)


def test_names_are_sorted_and_canonical(tmp_path: Path) -> None:
    for name in ("c", "a", "b"):
        add(tmp_path, name, f'engine = "*"\naliases = ["{name}{name}"]\n')
    assert Registry.load(tmp_path).names == ("a", "b", "c")


def test_files_caches_and_hidden_folders_are_no_voices(tmp_path: Path) -> None:
    add(tmp_path, "alice")
    (tmp_path / "README").touch()
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / ".git").mkdir()
    registry = Registry.load(tmp_path)
    assert (registry.names, registry.problems) == (("alice",), {})


def test_an_empty_folder(tmp_path: Path) -> None:
    registry = Registry.load(tmp_path)
    with pytest.raises(UnknownVoiceError, match="there are: none at all"):
        registry.resolve("default")


# What is wrong with one voice


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('engine = "*', "alice/voice.toml: "),
        ('engine = "*"\nengine = "x"\n', "alice/voice.toml: "),
        (b"\xff\xfe", "alice/voice.toml: "),
        (b"", "name: Field required"),
        (b'name = "alice"\nnote = ' + b"9" * 5000, "alice/voice.toml: "),
        (b"a = " + b"[" * 5000, "alice/voice.toml: "),
        ('engine = "*"\nvolume = 3\n', "volume: Extra inputs"),
        ('engine = "*"\n[consent]\ngiven_by = "A"\ngiven_on = 2026-01-31\nuntil = 1\n', "consent.until: Extra inputs"),
        ('engine = "*"\nlanguage = "English"\n', "language: "),
        ('engine = "*"\naliases = ["../x"]\n', "aliases.0: "),
        ('engine = "*"\naliases = ["Alloy"]\n', "aliases.0: "),
        ('engine = "*"\naliases = "alloy"\n', "aliases: "),
        ('engine = "*"\nparameters = {warmth = [1]}\n', "parameters.warmth"),
        ("", "exactly one of `engine`"),
        ('engine = "*"\nreference = "clip.wav"\nsynthetic = true\n', "exactly one of `engine`"),
        ('reference = "clip.wav"\n', "needs the speaker's consent on record"),
        ('reference = "clip.wav"\nsynthetic = false\n', "needs the speaker's consent on record"),
        ('reference = "clip.wav"\n[consent]\ngiven_by = ""\ngiven_on = 2026-01-31\n', "consent.given_by: "),
        ('reference = "clip.wav"\n[consent]\ngiven_by = "Ada"\n', "consent.given_on: Field required"),
        ('reference = "other.wav"\nsynthetic = true\n', "the reference clip 'other.wav' is missing"),
        ('reference = "folder"\nsynthetic = true\n', "the reference clip 'folder' is missing"),
    ],
)
def test_a_broken_description(tmp_path: Path, toml: str | bytes, said: str) -> None:
    own = add(tmp_path, "alice", toml)
    (own / "clip.wav").touch()
    (own / "folder").mkdir()
    add(tmp_path, "zoe")
    found = problem(tmp_path)
    assert said in found
    assert str(own / "voice.toml") in found
    assert Registry.load(tmp_path).names == ("zoe",)


@pytest.mark.parametrize(
    "reference",
    [
        *["../clip.wav", "../zoe/clip.wav", "/etc/passwd", "folder/clip.wav", "..", ".", "", ".clip.wav"],
        *["clip.wav\\n", "clip\\u0000.wav", "a b.wav", "~root", "x" * 101],
    ],
)
def test_a_reference_is_a_plain_file_name(tmp_path: Path, reference: str) -> None:
    own = add(tmp_path, "alice", f'reference = "{reference}"\nsynthetic = true\n')
    (tmp_path / "clip.wav").touch()
    (own / "folder").mkdir()
    (own / "folder" / "clip.wav").touch()
    assert "reference: String should match pattern" in problem(tmp_path)


@pytest.mark.parametrize("name", ["bob", "ALICE"])
def test_the_name_is_the_folders(tmp_path: Path, name: str) -> None:
    add(tmp_path, "alice", named=name)
    assert problem(tmp_path)
    assert Registry.load(tmp_path).names == ()


def test_a_name_that_is_not_the_folders_says_so(tmp_path: Path) -> None:
    add(tmp_path, "alice", named="bob")
    assert "name is 'bob' but the folder is 'alice'; make them equal" in problem(tmp_path)


def test_a_folder_without_a_description(tmp_path: Path) -> None:
    (tmp_path / "alice").mkdir()
    (tmp_path / "alice" / "reference.wav").touch()
    assert "No such file" in problem(tmp_path)


def test_a_description_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "alice" / "voice.toml").mkdir(parents=True)
    assert "Is a directory" in problem(tmp_path)


@given(st.binary(max_size=60))
def test_no_description_takes_the_others_down(tmp_path_factory: pytest.TempPathFactory, toml: bytes) -> None:
    folder = tmp_path_factory.mktemp("voices")
    add(folder, "alice", toml)
    add(folder, "zoe")
    registry = Registry.load(folder)
    assert registry.names == ("zoe",)
    assert list(registry.problems) == ["alice"]


# Names that clash


def test_two_voices_with_one_alias(tmp_path: Path) -> None:
    add(tmp_path, "alice", 'engine = "*"\naliases = ["al"]\n')
    add(tmp_path, "bob", 'engine = "*"\naliases = ["al"]\n')
    registry = Registry.load(tmp_path)
    assert registry.names == ("alice",)
    assert "'al' is already the name or alias of voice 'alice'" in registry.problems["bob"]
    assert registry.resolve("al").name == "alice"


@pytest.mark.parametrize(("thief", "owner"), [("alice", "bob"), ("bob", "alice")])
def test_an_alias_does_not_take_another_voices_name(tmp_path: Path, thief: str, owner: str) -> None:
    add(tmp_path, thief, f'engine = "*"\naliases = ["{owner}"]\n')
    add(tmp_path, owner)
    registry = Registry.load(tmp_path)
    assert registry.names == (owner,)
    assert registry.resolve(owner).name == owner
    assert f"{owner!r} is already the name or alias of voice {owner!r}" in registry.problems[thief]


def test_nobody_answers_in_place_of_a_broken_voice(tmp_path: Path) -> None:
    add(tmp_path, "alice", 'engine = "*"\naliases = ["bob"]\n')
    add(tmp_path, "bob", "engine = ")
    with pytest.raises(UnknownVoiceError, match="voice 'bob' cannot be used"):
        Registry.load(tmp_path).resolve("bob")


def test_a_voice_that_is_left_out_keeps_no_alias(tmp_path: Path) -> None:
    add(tmp_path, "alice", 'engine = "*"\naliases = ["free", "zoe"]\n')
    add(tmp_path, "bob", 'engine = "*"\naliases = ["free"]\n')
    add(tmp_path, "zoe")
    registry = Registry.load(tmp_path)
    assert registry.names == ("bob", "zoe")
    assert registry.resolve("free").name == "bob"


def test_an_alias_twice_or_of_ones_own_is_harmless(tmp_path: Path) -> None:
    add(tmp_path, "alice", 'engine = "*"\naliases = ["alice", "al", "al"]\n')
    assert Registry.load(tmp_path).problems == {}


# Lookups


@pytest.mark.parametrize("name", ["../../etc/passwd", "alice/", "./alice", "Alice", "alice ", "", "voice.toml", "\x00"])
def test_a_name_is_only_looked_up(tmp_path: Path, name: str) -> None:
    add(tmp_path, "alice")
    add(tmp_path, "bob")
    with pytest.raises(UnknownVoiceError) as refused:
        Registry.load(tmp_path).resolve(name)
    assert str(refused.value) == f"there is no voice {name!r}; there are: alice, bob"


def test_a_broken_voice_tells_what_is_wrong(tmp_path: Path) -> None:
    add(tmp_path, "alice", "volume = 3\n")
    with pytest.raises(UnknownVoiceError, match=r"voice 'alice' cannot be used: .*volume: Extra inputs"):
        Registry.load(tmp_path).resolve("alice")


# The folder itself


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(VoiceError, match=r"there is no folder of voices at .*/absent; set CHORUS_VOICES_DIR"):
        Registry.load(tmp_path / "absent")


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(VoiceError, match="there is no folder of voices"):
        Registry.load(tmp_path / "file")


def as_nobody(folder: Path) -> str:
    """What a user without rights gets to see of the folder."""
    code = """if True:
        import os, sys
        from pathlib import Path
        from voices.registry import Registry, VoiceError
        if os.getuid() == 0:
            os.seteuid(65534)
        try:
            registry = Registry.load(Path(sys.argv[1]))
            print(registry.names, list(registry.problems))
        except VoiceError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", code, folder], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """A folder of voices that other users reach."""
    folder = tmp_path / "voices"
    folder.mkdir()
    for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        if parent.stat().st_uid == os.getuid():
            parent.chmod(0o755)
    return folder


def test_a_folder_that_may_not_be_read(open_folder: Path) -> None:
    open_folder.chmod(0o300)
    assert as_nobody(open_folder) == f"cannot read the folder of voices {open_folder}: Permission denied"
    open_folder.chmod(0o755)


def test_a_voice_that_may_not_be_read(open_folder: Path) -> None:
    add(open_folder, "alice").chmod(0o000)
    add(open_folder, "zoe")
    assert as_nobody(open_folder) == "('zoe',) ['alice']"
    (open_folder / "alice").chmod(0o755)


# What ships


def test_the_shipped_voices() -> None:
    registry = Registry.load(SHIPPED)
    assert registry.problems == {}
    assert registry.resolve("default").fits("hibari", clones_voices=False)
    for name in OPENAI:
        assert registry.resolve(name).name in registry.names
    assert set(OPENAI) <= set(registry.resolve("default").aliases)
