from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from voices.conditionals_cache import content_of, forget, place


def test_named_by_content(tmp_path: Path) -> None:
    (tmp_path / "clip.wav").write_bytes(b"sound")
    content = content_of(tmp_path / "clip.wav")
    assert content == hashlib.sha256(b"sound").hexdigest()
    assert place(tmp_path, "model", content) == tmp_path / "conditionals" / "model" / f"{content}.safetensors"
    with pytest.raises(FileNotFoundError):
        content_of(tmp_path / "none.wav")


def test_forgotten_by_every_model_and_no_other(tmp_path: Path) -> None:
    files = {(model, content): place(tmp_path, model, content) for model in ("one", "two") for content in ("a", "b")}
    for file in files.values():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    forget(tmp_path, "a")
    assert {key for key, file in files.items() if file.exists()} == {("one", "b"), ("two", "b")}
    forget(tmp_path / "none", "a")
