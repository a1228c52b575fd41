"""Voices as their folders describe them, and their possible defects."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import unicodedata
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.clock import Clock
from tests.support.harness import ROOT, wait_until
from voices import registry as module
from voices.names import folder_name
from voices.registry import LiveRegistry, Registry, UnknownVoiceError, Voice, VoiceError

SHIPPED = ROOT / "voices"

CLONED = 'reference = "clip.wav"\n[consent]\ngiven_by = "Ada"\ngiven_on = 2026-01-31\n'

OPENAI = ["alloy", "ash", "ballad", "coral", "echo", "fable", "nova", "onyx", "sage", "shimmer", "verse"]


def add(folder: Path, name: str, toml: str | bytes = 'engine = "*"\n', *, named: str | None = None) -> Path:
    """Makes a voice's folder. The voice.toml starts with its `name`, unless `toml` is bytes."""
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


# Valid voices


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


def test_a_synthetic_clip_needs_no_consent(tmp_path: Path) -> None:
    (add(tmp_path, "alice", 'reference = "clip.wav"\nsynthetic = true\n') / "clip.wav").touch()
    assert Registry.load(tmp_path).names == ("alice",)


def test_names_are_sorted_and_canonical(tmp_path: Path) -> None:
    for name in ("c", "a", "b"):
        add(tmp_path, name, f'engine = "*"\naliases = ["{name}{name}"]\n')
    assert Registry.load(tmp_path).names == ("a", "b", "c")


def test_files_caches_and_hidden_folders_are_not_voices(tmp_path: Path) -> None:
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


# Broken voices


@pytest.mark.parametrize(
    ("toml", "message"),
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
        ('engine = "*"\naliases = [" "]\n', "aliases.0: is empty; 'narrator' would do"),
        ('engine = "*"\naliases = ["al", "a\\tl"]\n', "aliases.1: has a control character (U+0009)"),
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
def test_a_broken_description(tmp_path: Path, toml: str | bytes, message: str) -> None:
    own = add(tmp_path, "alice", toml)
    (own / "clip.wav").touch()
    (own / "folder").mkdir()
    add(tmp_path, "zoe")
    error = problem(tmp_path)
    assert message in error
    assert str(own / "voice.toml") in error
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


@pytest.mark.parametrize(("name", "remedy"), [("bob", "'bob'"), ("Alice M", "'alice-m-"), ("../alice", "'alice-")])
def test_a_name_that_is_not_the_folders_says_so(tmp_path: Path, name: str, remedy: str) -> None:
    add(tmp_path, "alice", named=name)
    assert f"name is {name!r}, and the folder is 'alice'; rename the folder to {remedy}" in problem(tmp_path)
    assert Registry.load(tmp_path).names == ()


def test_a_folder_without_a_description(tmp_path: Path) -> None:
    (tmp_path / "alice").mkdir()
    (tmp_path / "alice" / "reference.wav").touch()
    assert "No such file" in problem(tmp_path)


def test_a_description_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "alice" / "voice.toml").mkdir(parents=True)
    assert "Is a directory" in problem(tmp_path)


@pytest.mark.parametrize(
    ("odd", "message"),
    [("fifo", "Not a regular file"), ("device", "Not a regular file"), ("huge", "Larger than 64 KiB")],
)
def test_a_description_that_is_no_small_file(tmp_path: Path, odd: str, message: str) -> None:
    _odd_file((tmp_path / "alice") / "voice.toml", odd)
    assert message in problem(tmp_path)


@pytest.mark.parametrize(
    ("odd", "message"),
    [("fifo", "Not a regular file"), ("device", "Not a regular file"), ("huge", "Larger than 64 MiB")],
)
def test_a_clip_that_is_no_small_file(tmp_path: Path, odd: str, message: str) -> None:
    own = add(tmp_path, "alice", 'reference = "clip.wav"\nsynthetic = true\n')
    _odd_file(own / "clip.wav", odd)
    assert message in problem(tmp_path)


def _odd_file(path: Path, odd: str) -> None:
    path.parent.mkdir(exist_ok=True)
    if odd == "fifo":
        os.mkfifo(path)
    elif odd == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(2**31)


@given(st.binary(max_size=60))
def test_no_description_makes_other_voices_unusable(tmp_path_factory: pytest.TempPathFactory, toml: bytes) -> None:
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


def test_no_alias_takes_the_name_of_a_broken_voice(tmp_path: Path) -> None:
    add(tmp_path, "alice", 'engine = "*"\naliases = ["bob"]\n')
    add(tmp_path, "bob", "engine = ")
    with pytest.raises(UnknownVoiceError, match="voice 'bob' cannot be used"):
        Registry.load(tmp_path).resolve("bob")


def test_a_voice_that_is_left_out_has_no_aliases(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("name", ["../../etc/passwd", "alice/", "./alice", "ali ce", "", "voice.toml", "\x00"])
def test_a_name_is_only_looked_up(tmp_path: Path, name: str) -> None:
    add(tmp_path, "alice")
    add(tmp_path, "bob")
    with pytest.raises(UnknownVoiceError) as refused:
        Registry.load(tmp_path).resolve(name)
    assert str(refused.value) == f"there is no voice {name!r}; there are: alice, bob"


@pytest.mark.parametrize("name", ["J. R. R. O'Neil-Smith", "Zoë", "日本", "../x", "a/b", "ALICE", "Ünï 🙂"])
def test_a_name_is_any_printable_line(tmp_path: Path, name: str) -> None:
    own = add(tmp_path, folder_name(name), 'aliases = ["Some One"]\n' + CLONED, named=name)
    (own / "clip.wav").touch()
    registry = Registry.load(tmp_path)
    assert registry.names == (name,)
    spellings = (name, f"  {name}\n", name.upper(), name.swapcase(), unicodedata.normalize("NFD", name))
    assert {registry.resolve(spelling).name for spelling in spellings} == {name}
    assert registry.resolve(" SOME   one").name == name
    assert registry.reference(registry.resolve(name)) == own / "clip.wav"
    assert own.parent == tmp_path


def test_names_and_aliases_that_differ_in_case_clash(tmp_path: Path) -> None:
    add(tmp_path, "alice", 'engine = "*"\naliases = ["Zoë"]\n', named="Alice")
    add(tmp_path, "bob", 'engine = "*"\naliases = ["ZOË "]\n')
    add(tmp_path, "carl", 'engine = "*"\naliases = ["ALICE"]\n')
    registry = Registry.load(tmp_path)
    assert registry.names == ("Alice",)
    assert "'ZOË' is already the name or alias of voice 'Alice'; 'ZOË 2' is free" in registry.problems["bob"]
    assert "'ALICE' is already the name or alias of voice 'Alice'; 'ALICE 2' is free" in registry.problems["carl"]


def test_the_error_of_a_broken_voice_is_found_by_its_name(tmp_path: Path) -> None:
    add(tmp_path, folder_name("Zoë"), "volume = 3\n", named="Zoë")
    with pytest.raises(UnknownVoiceError, match=r"voice 'ZOË' cannot be used: .*volume: Extra inputs"):
        Registry.load(tmp_path).resolve("ZOË")


def test_the_error_of_a_broken_voice_says_what_is_wrong(tmp_path: Path) -> None:
    add(tmp_path, "alice", "volume = 3\n")
    with pytest.raises(
        UnknownVoiceError, match=r"voice 'alice' cannot be used: alice/voice\.toml: volume: Extra inputs"
    ):
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
    """What a user without permissions can read in the folder."""
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
    """A folder of voices that other users can access."""
    folder = tmp_path / "voices"
    folder.mkdir()
    for parent in (tmp_path, *tmp_path.parents):
        if Path(tempfile.gettempdir()) not in parent.parents:
            break
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


# A folder that changes


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a cloned voice `alice`."""
    folder = tmp_path / "voices"
    (add(folder, "alice", CLONED) / "clip.wav").write_bytes(b"first")
    return folder


@pytest.fixture
def live(folder: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> LiveRegistry:
    caplog.set_level(logging.INFO)
    return LiveRegistry(folder, clock)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every scan of a folder."""
    made: list[Path] = []
    snapshot = module._snapshot

    def noted(folder: Path) -> dict[Path, tuple[int, ...] | None]:
        made.append(folder)
        return snapshot(folder)

    monkeypatch.setattr(module, "_snapshot", noted)
    return made


def test_it_answers_as_a_registry(live: LiveRegistry, folder: Path) -> None:
    plain = Registry.load(folder)
    assert live.names == plain.names == ("alice",)
    assert list(live) == list(plain) == [plain.resolve("alice")]
    assert live.resolve("alice") == plain.resolve("alice")
    assert live.reference(live.resolve("alice")) == folder / "alice" / "clip.wav"
    assert live.current == plain
    with pytest.raises(UnknownVoiceError, match="there is no voice 'bob'; there are: alice"):
        live.resolve("bob")


def test_voices_come_sorted(tmp_path: Path) -> None:
    voices = {name: Voice(name=name, engine="*") for name in ("c", "a", "b")}
    assert [voice.name for voice in Registry(voices, tmp_path)] == ["a", "b", "c"]


def test_a_folder_that_cannot_be_read_at_first(tmp_path: Path) -> None:
    with pytest.raises(VoiceError, match="there is no folder of voices"):
        LiveRegistry(tmp_path / "absent")


def test_a_new_voice_is_listed_after_a_second(live: LiveRegistry, folder: Path, clock: Clock) -> None:
    add(folder, "bob")
    clock.now += 0.99
    assert list(live.names) == ["alice"]
    clock.now += 0.02
    assert list(live.names) == ["alice", "bob"]


def test_a_new_voice_can_be_used_at_once(live: LiveRegistry, folder: Path, clock: Clock) -> None:
    add(folder, "bob", 'engine = "*"\naliases = ["bo"]\n')
    clock.now += 0.06
    assert live.resolve("bo").name == "bob"


def test_many_unknown_names_cost_few_scans(live: LiveRegistry, clock: Clock, reads: list[Path]) -> None:
    for _ in range(100):
        clock.now += 0.01
        with pytest.raises(UnknownVoiceError):
            live.resolve("bob")
    assert 15 <= len(reads) <= 20


def test_known_names_cost_no_scan_until_one_is_due(
    live: LiveRegistry, clock: Clock, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.now += 0.9
    for _ in range(100):
        live.resolve("alice")
    assert reads == []
    clock.now += 0.2
    monkeypatch.setattr(Registry, "load", None)  # nothing has changed, nothing is read
    for _ in range(100):
        live.resolve("alice")
    assert len(reads) == 1


def test_a_removed_voice_is_gone(live: LiveRegistry, folder: Path, clock: Clock) -> None:
    shutil.rmtree(folder / "alice")
    clock.now += 1.1
    with pytest.raises(UnknownVoiceError, match="there are: none at all"):
        live.resolve("alice")


def test_a_changed_description(live: LiveRegistry, folder: Path, clock: Clock) -> None:
    file = folder / "alice" / "voice.toml"
    before = file.stat()
    file.write_text(file.read_text().replace("Ada", "Eve"))
    # The clock of files goes in steps of milliseconds, in which a fast machine writes twice.
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
    clock.now += 1.1
    consent = live.resolve("alice").consent
    assert consent is not None
    assert consent.given_by == "Eve"


def test_a_changed_description_with_the_same_modification_time(live: LiveRegistry, folder: Path, clock: Clock) -> None:
    file = folder / "alice" / "voice.toml"
    before = file.stat()
    fresh = folder / "alice" / "fresh"
    fresh.write_text(file.read_text().replace("Ada", "Eve"))
    os.utime(fresh, ns=(before.st_atime_ns, before.st_mtime_ns))
    fresh.replace(file)
    clock.now += 1.1
    assert "Eve" in str(live.resolve("alice").consent)


def test_a_clip_that_is_deleted_and_restored(
    live: LiveRegistry, folder: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    clip = folder / "alice" / "clip.wav"
    alice = live.resolve("alice")
    clip.unlink()
    with pytest.raises(VoiceError, match=r"^cannot read the reference clip alice/clip\.wav: No such file"):
        live.fingerprint(alice)
    clock.now += 1.1
    with pytest.raises(UnknownVoiceError, match=r"the reference clip 'clip\.wav' is missing"):
        live.resolve("alice")
    assert "voice alice is left out" in caplog.text
    clip.write_bytes(b"second")
    clock.now += 1.1
    assert live.resolve("alice") == alice


def test_the_fingerprint_changes_only_with_the_clip(live: LiveRegistry, folder: Path, clock: Clock) -> None:
    alice = live.resolve("alice")
    clip = folder / "alice" / "clip.wav"
    first = live.fingerprint(alice)
    (folder / "alice" / "voice.toml").write_text((folder / "alice" / "voice.toml").read_text() + "# more\n")
    clip.chmod(0o600)
    assert live.fingerprint(alice) == first
    other = clip.with_name("other")
    other.write_bytes(b"other")
    os.utime(other, ns=(first[0], first[0]))
    other.replace(clip)
    second = live.fingerprint(alice)
    assert second != first
    clip.write_bytes(b"longer than before")
    os.utime(clip, ns=(first[0], first[0]))
    assert live.fingerprint(alice) not in (first, second)


def test_a_built_in_voice_has_no_fingerprint(live: LiveRegistry, folder: Path, clock: Clock) -> None:
    add(folder, "bob")
    clock.now += 1.1
    with pytest.raises(VoiceError, match="has no reference clip"):
        live.fingerprint(live.resolve("bob"))


def test_a_problem_is_logged_once(
    live: LiveRegistry, folder: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    add(folder, "bob", "volume = 3\n")
    for name in ("carl", "dora"):
        clock.now += 1.1
        add(folder, name)
        assert name in live.names
    assert caplog.text.count("voice bob is left out") == 1
    (folder / "bob" / "voice.toml").write_text('name = "bob"\npitch = 3\n')
    clock.now += 1.1
    with pytest.raises(UnknownVoiceError, match="pitch: Extra inputs"):
        live.resolve("bob")
    assert caplog.text.count("voice bob is left out") == 2


def test_problems_at_the_start_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add(tmp_path, "bob", "volume = 3\n")
    LiveRegistry(tmp_path)
    assert caplog.text.count("voice bob is left out") == 1


def test_the_last_known_voices_remain_while_the_folder_is_missing(
    live: LiveRegistry, folder: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    away = folder.rename(folder.with_name("away"))
    for _ in range(3):
        clock.now += 1.1
        assert live.names == ("alice",)
    with pytest.raises(UnknownVoiceError):
        live.resolve("bob")
    assert caplog.text.count("the last known voices remain in use: there is no folder of voices") == 1
    add(away, "bob")
    away.rename(folder)
    clock.now += 0.06
    assert live.resolve("bob").name == "bob"
    folder.rename(away)
    clock.now += 1.1
    assert live.names == ("alice", "bob")
    assert caplog.text.count("remain in use") == 2


def test_a_change_is_logged(live: LiveRegistry, folder: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    assert "have changed" not in caplog.text
    add(folder, "bob")
    clock.now += 1.1
    assert live.names
    assert "the voices have changed; now there are: alice, bob" in caplog.text


def test_changed_permissions_count_as_a_change(
    live: LiveRegistry, folder: Path, clock: Clock, reads: list[Path]
) -> None:
    before = live.current
    file = folder / "alice" / "voice.toml"
    written = file.stat().st_ctime_ns

    def changed() -> bool:
        file.chmod(0o600)
        return file.stat().st_ctime_ns != written

    wait_until(changed)  # the clock of files goes in steps of milliseconds
    clock.now += 1.1
    assert live.current is not before


def test_an_empty_folder_is_a_broken_voice(live: LiveRegistry, folder: Path, clock: Clock) -> None:
    (folder / "bob").mkdir()
    clock.now += 1.1
    with pytest.raises(UnknownVoiceError, match="voice 'bob' cannot be used"):
        live.resolve("bob")


def test_hidden_folders_are_not_scanned(live: LiveRegistry, folder: Path, clock: Clock) -> None:
    before = live.current
    add(folder, ".new-bob")
    clock.now += 1.1
    assert live.current is before


def test_many_threads_scan_once(
    live: LiveRegistry, folder: Path, clock: Clock, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"voice-{number}" for number in range(8)]
    for name in names:
        add(folder, name)
    clock.now += 1.1
    all_there = threading.Barrier(len(names))
    resolved: list[str] = []

    def resolve(name: str) -> None:
        all_there.wait()
        resolved.append(live.resolve(name).name)

    threads = [threading.Thread(target=resolve, args=[name]) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(resolved) == names
    assert len(reads) == 1


# Voices in the repository


def test_the_shipped_voices() -> None:
    registry = Registry.load(SHIPPED)
    assert registry.problems == {}
    assert registry.resolve("default").fits("hibari", clones_voices=False)
    for name in OPENAI:
        assert registry.resolve(name).name in registry.names
    assert set(OPENAI) <= set(registry.resolve("default").aliases)
