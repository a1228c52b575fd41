from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from voices.conditionals_cache import cache_file, clip_digest, clip_digests, delete_cached


def test_files_are_named_by_the_clips_content(tmp_path: Path) -> None:
    (tmp_path / "clip.wav").write_bytes(b"sound")
    digest = clip_digest(tmp_path / "clip.wav")
    assert digest == hashlib.sha256(b"sound").hexdigest()
    assert cache_file(tmp_path, "model", digest) == tmp_path / "conditionals" / "model" / f"{digest}.safetensors"
    with pytest.raises(FileNotFoundError):
        clip_digest(tmp_path / "none.wav")


def test_delete_cached_deletes_the_files_of_every_model_and_no_other_clip(tmp_path: Path) -> None:
    files = {(model, digest): cache_file(tmp_path, model, digest) for model in ("one", "two") for digest in ("a", "b")}
    for file in files.values():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    delete_cached(tmp_path, ["a"])
    assert {key for key, file in files.items() if file.exists()} == {("one", "b"), ("two", "b")}
    delete_cached(tmp_path / "none", ["a"])


def test_clip_digests_are_those_of_the_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "clip.wav").write_bytes(b"sound")
    (tmp_path / "folder").mkdir()
    assert clip_digests(tmp_path) == (clip_digest(tmp_path / "clip.wav"),)
    assert clip_digests(tmp_path / "none") == ()
