"""Checkpoints on this host: whole, partial, damaged or not there, in a folder of one's own or in the hub's cache."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from tests.support.checkpoint_files import LFS_POINTER, files_of, pickled, safetensors, write
from tests.support.fake_hub import checksum
from worker.cards import CARDS
from worker.checkpoints.catalogue import (
    CHECKPOINTS,
    COMMIT,
    DOWNLOADS,
    MEANFLOW,
    Checkpoint,
    CheckpointError,
    DamagedCheckpointError,
    FileState,
    MissingCheckpointError,
    PartialCheckpointError,
    find,
    find_meanflow,
    hub_cache,
    locate,
    missing_extra,
    size_on_disk,
    verify,
)
from worker.checkpoints.integrity import DamagedFileError, check_content, check_structure

TURBO = CHECKPOINTS["turbo"]
FOLLOWING_MAIN = {name for name, checkpoint in CHECKPOINTS.items() if checkpoint.revision == "main"}
ORIGINAL = CHECKPOINTS["multilingual"]
HUB_VARIABLES = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME")
VE = "ve.safetensors"


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    for variable in HUB_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def cached(hub: Path, checkpoint: Checkpoint = TURBO, *, revision: str | None = None) -> Path:
    """A snapshot in the cache, as the hub's library writes it: links to blobs that are named by checksum."""
    repository = hub / f"models--{checkpoint.repository.replace('/', '--')}"
    snapshot = repository / "snapshots" / (revision or checkpoint.revision)
    (repository / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name, content in files_of(checkpoint).items():
        (repository / "blobs" / checksum(content)).write_bytes(content)
        (snapshot / name).symlink_to(Path("..", "..", "blobs", checksum(content)))
    return snapshot


def refusal(
    checkpoint: Checkpoint = TURBO, model_dir: Path | None = None, revision: str | None = None
) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        find(checkpoint, model_dir=model_dir, revision=revision)
    assert "\n" not in str(caught.value)
    return caught.value


# The table


def test_every_engine_that_needs_an_extra_has_a_checkpoint() -> None:
    assert set(CHECKPOINTS) == {card.name for card in CARDS.values() if card.extra is not None}


@pytest.mark.parametrize("checkpoint", DOWNLOADS.values(), ids=DOWNLOADS.keys())
def test_revisions_are_commits_and_names_are_no_patterns(checkpoint: Checkpoint) -> None:
    assert COMMIT.fullmatch(checkpoint.revision) or checkpoint.engine in FOLLOWING_MAIN
    assert all(set(name) & set("*?[/") == set() for name in checkpoint.files)
    assert len(set(checkpoint.files)) == len(checkpoint.files)


def test_the_parts_of_a_language_pack() -> None:
    pack = CHECKPOINTS["multilingual-es-mx-latam"]
    assert pack.own.repository == "ResembleAI/Chatterbox-Multilingual-es-mx-latam"
    assert pack.own.files == ("t3_es_mx_latam.safetensors", "s3gen_v3.pt", "grapheme_mtl_merged_expanded_v1.json")
    assert pack.borrowed is not None
    assert (pack.borrowed.repository, pack.borrowed.revision) == (ORIGINAL.repository, ORIGINAL.revision)
    assert {*pack.own.files, *pack.borrowed.files} == {*pack.files, *pack.optional}
    assert set(pack.borrowed.files) <= {*ORIGINAL.files, *ORIGINAL.optional}


def test_chinese_is_segmented_where_it_is_spoken() -> None:
    segmenting = {checkpoint.engine for checkpoint in CHECKPOINTS.values() if checkpoint.segments_chinese}
    assert segmenting == {"multilingual", "multilingual-v3", "multilingual-zh-cmn"}


# A folder of one's own


@pytest.mark.parametrize("checkpoint", CHECKPOINTS.values(), ids=CHECKPOINTS.keys())
def test_a_whole_folder(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = write(checkpoint, tmp_path / "model")
    assert find(checkpoint, model_dir=folder, revision=None) == folder
    assert find(checkpoint, model_dir=folder, revision="any") == folder


def test_the_voice_that_comes_with_a_model_may_be_missing(tmp_path: Path) -> None:
    folder = write(TURBO, tmp_path / "model")
    (folder / "conds.pt").unlink()
    assert find(TURBO, model_dir=folder, revision=None) == folder


def test_but_not_damaged(tmp_path: Path) -> None:
    folder = write(TURBO, tmp_path / "model")
    (folder / "conds.pt").write_bytes(pickled()[:3000])
    assert "conds.pt is not a readable .pt file" in str(refusal(model_dir=folder))


def test_a_folder_that_lacks_files(tmp_path: Path) -> None:
    folder = write(TURBO, tmp_path / "model")
    (folder / "vocab.json").unlink()
    (folder / "merges.txt").unlink()
    error = refusal(model_dir=folder)
    assert isinstance(error, PartialCheckpointError)
    assert (error.folder, error.state) == (folder, "partial")
    assert str(error) == (
        f"turbo's weights in {folder} lack vocab.json, merges.txt; "
        "put them there whole, or unset CHORUS_MODEL_DIR (--model-dir) and run: chorus models download turbo"
    )


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("hello")
    error = refusal(model_dir=tmp_path)
    assert type(error) is MissingCheckpointError
    assert error.folder is None
    assert str(error).startswith(f"none of turbo's weights are in {tmp_path}: ve.safetensors, t3_turbo_v1.safetensors,")


@pytest.mark.parametrize(("name", "fault"), [("nowhere", "does not exist"), ("file", "is not a folder")])
def test_no_folder(tmp_path: Path, name: str, fault: str) -> None:
    (tmp_path / "file").write_text("")
    error = refusal(model_dir=tmp_path / name)
    assert type(error) is MissingCheckpointError
    assert str(error).startswith(f"the folder of turbo's weights, {tmp_path / name}, {fault}; put them there whole")


def test_every_damaged_file_is_named(tmp_path: Path) -> None:
    folder = write(TURBO, tmp_path / "model")
    (folder / VE).write_bytes(safetensors()[:-1])
    (folder / "vocab.json").write_text("{")
    (folder / "merges.txt").unlink()
    error = refusal(model_dir=folder)
    assert isinstance(error, DamagedCheckpointError)
    assert (error.folder, error.state) == (folder, "damaged")
    size = len(safetensors())
    assert f"{VE} has {size - 1:,} bytes where its header promises {size:,}; vocab.json is not readable" in str(error)


def test_files_that_may_not_be_read(tmp_path: Path) -> None:
    folder = write(TURBO, tmp_path / "model")
    # Root may read anything, but nobody follows a link to itself.
    (folder / VE).unlink()
    (folder / VE).symlink_to(VE)
    assert f"{VE} cannot be read: Too many levels of symbolic links" in str(refusal(model_dir=folder))
    assert states(TURBO, folder)[VE] is FileState.DAMAGED


# The hub's cache


def test_a_snapshot_in_the_cache(hub: Path) -> None:
    snapshot = cached(hub)
    assert find(TURBO, model_dir=None, revision=None) == snapshot
    assert find(TURBO, model_dir=None, revision=TURBO.revision) == snapshot


def test_nothing_in_the_cache() -> None:
    error = refusal()
    assert type(error) is MissingCheckpointError
    assert (error.folder, error.state) == (None, "missing")
    assert str(error) == "turbo's weights are not on this host; run: chorus models download turbo"


def test_another_engines_snapshot_in_the_same_repository(hub: Path) -> None:
    cached(hub, CHECKPOINTS["multilingual"])
    error = refusal(CHECKPOINTS["chatterbox"])
    assert type(error) is MissingCheckpointError
    assert str(error) == "chatterbox's weights are not on this host; run: chorus models download chatterbox"
    assert isinstance(refusal(CHECKPOINTS["multilingual-v3"]), PartialCheckpointError)


def test_only_the_pinned_revision_counts(hub: Path) -> None:
    cached(hub, revision="a" * 40)
    assert type(refusal()) is MissingCheckpointError


def test_another_revision_may_be_asked_for(hub: Path) -> None:
    snapshot = cached(hub, revision="a" * 40)
    assert find(TURBO, model_dir=None, revision="a" * 40) == snapshot
    error = refusal(revision="b" * 40)
    assert f"turbo's weights of revision {'b' * 40} are not on this host" in str(error)
    assert str(error).endswith(f"run: chorus models download turbo --revision {'b' * 40}")


@pytest.mark.parametrize("name", ["main", "v1.0", "refs/pr/3"])
def test_a_branch_is_what_it_was_when_last_heard_of(hub: Path, name: str) -> None:
    snapshot = cached(hub, revision="a" * 40)
    reference = snapshot.parents[1] / "refs" / name
    reference.parent.mkdir(parents=True)
    reference.write_text("a" * 40)
    assert find(TURBO, model_dir=None, revision=name) == snapshot
    assert type(refusal(revision="other")) is MissingCheckpointError


@pytest.mark.parametrize("content", [b"", b"../..", b"\xff", b"snapshots"])
def test_a_reference_that_is_none(hub: Path, content: bytes) -> None:
    snapshot = cached(hub)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_bytes(content)
    assert locate(TURBO, revision="main") is None


def test_a_partial_snapshot(hub: Path) -> None:
    snapshot = cached(hub)
    (snapshot / VE).unlink()
    (snapshot / "merges.txt").resolve().unlink()  # a link that leads nowhere is as good as none
    assert str(refusal()) == (f"turbo's weights in {snapshot} lack {VE}, merges.txt; run: chorus models download turbo")


def test_a_worker_that_is_given_the_snapshot_as_a_folder_says_the_same(hub: Path) -> None:
    snapshot = cached(hub)
    (snapshot / VE).unlink()
    assert str(refusal(model_dir=snapshot)) == str(refusal())
    other = cached(hub / "2", revision="a" * 40).rename(snapshot.parent / ("a" * 40))
    (other / "vocab.json").unlink()
    assert str(refusal(model_dir=other)).endswith(f"run: chorus models download turbo --revision {'a' * 40}")


def test_a_damaged_snapshot(hub: Path) -> None:
    snapshot = cached(hub)
    (snapshot / VE).resolve().write_bytes(LFS_POINTER)
    error = refusal()
    assert isinstance(error, DamagedCheckpointError)
    assert f"{VE} is a Git LFS pointer instead of the file" in str(error)
    assert str(error).endswith("; run: chorus models download turbo")


def test_a_cache_that_is_a_file(hub: Path) -> None:
    hub.write_text("")
    assert type(refusal()) is MissingCheckpointError
    error = refusal(revision="main")
    assert isinstance(error, DamagedCheckpointError)
    assert str(error) == f"cannot look into {hub}/models--ResembleAI--chatterbox-turbo: Not a directory"


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, "home/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "{}/xdg"}, "xdg/huggingface/hub"),
        ({"XDG_CACHE_HOME": "{}/xdg", "HF_HOME": "{}/hf"}, "hf/hub"),
        ({"HF_HOME": "~/hf"}, "home/hf/hub"),
        ({"HF_HOME": "$HOME/hf"}, "home/hf/hub"),
        ({"HF_HOME": "{}/hf", "HUGGINGFACE_HUB_CACHE": "{}/old"}, "old"),
        ({"HF_HOME": "{}/hf", "HUGGINGFACE_HUB_CACHE": "{}/old", "HF_HUB_CACHE": "{}/new"}, "new"),
        ({"HF_HOME": "", "HF_HUB_CACHE": ""}, "home/.cache/huggingface/hub"),
    ],
)
def test_where_the_cache_is(
    variables: dict[str, str], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp_path))
    assert hub_cache() == tmp_path / place


# The mean flow


def test_the_mean_flow_is_turbos() -> None:
    assert (MEANFLOW.repository, MEANFLOW.revision) == (TURBO.repository, TURBO.revision)
    assert set(MEANFLOW.files) < set(TURBO.files)


def test_the_mean_flow_lies_beside_the_engines_files_or_in_the_cache(hub: Path, tmp_path: Path) -> None:
    own = write(CHECKPOINTS["chatterbox"], tmp_path / "own")
    with pytest.raises(MissingCheckpointError) as caught:
        find_meanflow(own)
    assert str(caught.value) == "meanflow's weights are not on this host; run: chorus models download meanflow"
    snapshot = cached(hub)
    assert find_meanflow(own) == snapshot
    write(MEANFLOW, own)
    assert find_meanflow(own) == own
    (own / MEANFLOW.files[0]).write_bytes(LFS_POINTER)
    with pytest.raises(DamagedCheckpointError, match=r"s3gen_meanflow\.safetensors is a Git LFS pointer"):
        find_meanflow(own)


# What is damage


def big_header(size: int) -> bytes:
    return struct.pack("<Q", size) + b"{}"


def with_header(header: object) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.safetensors", b"", "is empty"),
        ("a.safetensors", LFS_POINTER, "is a Git LFS pointer"),
        ("a.safetensors", b"<html>Not found</html>", "does not begin like a safetensors file"),
        ("a.safetensors", b"\x02\0\0", "does not begin like a safetensors file"),
        ("a.safetensors", big_header(2**63), "does not begin like a safetensors file"),
        ("a.safetensors", big_header(100), "is cut short within its header, at 10 bytes"),
        ("a.safetensors", safetensors()[:5], "does not begin like"),
        ("a.safetensors", safetensors()[:40], "is cut short within its header"),
        ("a.safetensors", safetensors()[:2000], "bytes where its header promises"),
        ("a.safetensors", safetensors() + b"\0", "bytes where its header promises"),
        ("a.safetensors", with_header([1]), "no readable safetensors header"),
        ("a.safetensors", with_header({"a": {}}), "no readable safetensors header"),
        ("a.safetensors", with_header({"a": {"data_offsets": [0]}}), "no readable safetensors header"),
        ("a.safetensors", with_header({"a": {"data_offsets": [0, None]}}), "no readable safetensors header"),
        ("a.safetensors", struct.pack("<Q", 4) + b"\xff\xff\xff\xff", "no readable safetensors header"),
        ("a.pt", b"", "is empty"),
        ("a.pt", LFS_POINTER, "is a Git LFS pointer"),
        ("a.pt", b"<html>Not found</html>", "is not a readable .pt file"),
        ("a.pt", pickled()[:3000], "is not a readable .pt file"),
        ("a.json", b"", "is empty"),
        ("a.json", b'{"a": 1', "is not readable JSON"),
        ("a.json", b"\xff", "is not readable JSON"),
        ("a.json", b"[" * 100_000, "is not readable JSON"),
        ("a.txt", b"", "is empty"),
        ("a.txt", LFS_POINTER, "is a Git LFS pointer"),
    ],
)
def test_damage(name: str, content: bytes, fault: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DamagedFileError, match=fault):
        check_structure(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.safetensors", safetensors()),
        ("a.safetensors", with_header({})),
        ("a.safetensors", with_header({"__metadata__": {"a": "b"}})),
        ("a.pt", pickled()),
        ("a.json", b"{}"),
        ("a.txt", b"a"),
    ],
)
def test_no_damage(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    check_structure(tmp_path / name)
    check_content(tmp_path / name, lambda _: None)


def test_a_real_file_of_the_format(tmp_path: Path) -> None:
    save_file({"w": np.zeros((3, 4)), "v": np.ones(5)}, tmp_path / "a.safetensors")
    check_structure(tmp_path / "a.safetensors")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "a.json")
    with pytest.raises(DamagedFileError, match="is not a regular file"):
        check_structure(tmp_path / "a.json")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for check in (check_structure, lambda path: check_content(path, lambda _: None)):
        with pytest.raises(FileNotFoundError):
            check(tmp_path / "a.json")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


@given(st.sampled_from([".safetensors", ".pt", ".json"]), st.binary(max_size=200), st.data())
def test_whatever_the_bytes_nothing_else_is_raised(
    scratch: Path, suffix: str, noise: bytes, data: st.DataObject
) -> None:
    whole = {".safetensors": safetensors(300), ".pt": pickled(300), ".json": b'{"a": [1, 2]}'}[suffix]
    at = data.draw(st.integers(0, len(whole)))
    kept = data.draw(st.booleans())
    path = scratch / f"a{suffix}"
    path.write_bytes(whole[:at] + noise + (whole[at + len(noise) :] if kept else b""))
    try:
        check_structure(path)
        check_content(path, lambda _: None)
    except DamagedFileError:
        pass


# Reading in full


def states(checkpoint: Checkpoint, folder: Path) -> dict[str, FileState]:
    return {report.name: report.state for report in verify(checkpoint, folder)}


def flip(path: Path) -> None:
    """Change a byte in the middle, where no structure is."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_cached_file_is_compared_with_the_checksum_it_is_named_after(hub: Path) -> None:
    snapshot = cached(hub)
    reports = {report.name: report for report in verify(TURBO, snapshot)}
    assert {report.state for report in reports.values()} == {FileState.WHOLE}
    assert reports[VE].detail == "the hub's SHA-256"
    assert reports["vocab.json"].detail == "the hub's git checksum"
    assert reports[VE].size == len(files_of(TURBO)[VE])


@pytest.mark.parametrize("name", [VE, "conds.pt", "added_tokens.json", "merges.txt"])
def test_one_wrong_bit_in_the_cache(hub: Path, name: str) -> None:
    snapshot = cached(hub)
    flip(snapshot / name)
    found = states(TURBO, snapshot)
    assert found.pop(name) is FileState.DAMAGED
    assert set(found.values()) == {FileState.WHOLE}


def test_a_file_on_its_own_is_compared_with_its_own_checksums(tmp_path: Path) -> None:
    folder = write(ORIGINAL, tmp_path / "model")
    assert set(states(ORIGINAL, folder).values()) == {FileState.WHOLE}
    flip(folder / "s3gen.pt")
    reports = {report.name: report for report in verify(ORIGINAL, folder)}
    assert reports["s3gen.pt"].state is FileState.DAMAGED
    assert "damaged entry" in reports["s3gen.pt"].detail
    assert reports["ve.pt"].detail == "its own checksums"
    assert reports["t3_mtl23ls_v2.safetensors"].detail == "its structure only"


def test_links_of_ones_own_are_no_checksums(tmp_path: Path) -> None:
    folder = write(TURBO, tmp_path / "model")
    (folder / VE).rename(tmp_path / "elsewhere.safetensors")
    (folder / VE).symlink_to(tmp_path / "elsewhere.safetensors")
    assert states(TURBO, folder)[VE] is FileState.WHOLE


def test_missing_files_are_told_unless_they_may_be(tmp_path: Path) -> None:
    folder = write(TURBO, tmp_path / "model")
    (folder / VE).unlink()
    (folder / "conds.pt").unlink()
    found = states(TURBO, folder)
    assert found[VE] is FileState.MISSING
    assert "conds.pt" not in found


def test_progress_is_in_bytes(hub: Path) -> None:
    snapshot, read = cached(hub), list[int]()
    assert len(list(verify(TURBO, snapshot, read.append))) == len(TURBO.files) + 1
    assert sum(read) == size_on_disk(TURBO, snapshot) == sum(map(len, files_of(TURBO).values()))


# The extra


def test_an_extra_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert missing_extra(CARDS["turbo"]) == (
        "engine turbo needs the extra `chatterbox`, which is not installed; "
        "run: scripts/serve --engine turbo, or: pip install -e '.[chatterbox]'"
    )
    assert missing_extra(CARDS["hibari"]) is None


def test_an_extra_that_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "chatterbox")
    assert missing_extra(CARDS["turbo"]) is None
