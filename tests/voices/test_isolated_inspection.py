from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.recordings import record, speech
from voices import clips, isolated_inspection
from voices.clips import ClipError


def test_the_measurements_are_those_of_an_inspection_in_this_process(tmp_path: Path) -> None:
    clip = record(tmp_path / "a clip.flac", speech(6))
    assert isolated_inspection.inspect(clip) == clips.inspect(clip)


def test_silence_has_no_level(tmp_path: Path) -> None:
    clip = record(tmp_path / "clip.wav", speech(6, peak=0.0001))
    assert isolated_inspection.inspect(clip) == clips.inspect(clip)


@pytest.mark.parametrize(
    "content", [b"", b"no sound", b"RIFF\xff\xff\xff\xffWAVEfmt "], ids=["empty", "text", "header"]
)
def test_the_error_is_that_of_an_inspection_in_this_process(tmp_path: Path, content: bytes) -> None:
    clip = tmp_path / "clip.wav"
    clip.write_bytes(content)
    with pytest.raises(ClipError) as here:
        clips.inspect(clip)
    with pytest.raises(ClipError) as apart:
        isolated_inspection.inspect(clip)
    assert str(apart.value) == str(here.value)


def test_a_file_that_takes_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = record(tmp_path / "clip.wav", speech(6))
    monkeypatch.setattr(isolated_inspection, "MAX_SECONDS", 0.001)
    with pytest.raises(ClipError, match="takes more than"):
        isolated_inspection.inspect(clip)


def test_a_crash_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = record(tmp_path / "clip.wav", speech(6))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ClipError, match="cannot be decoded: it must be a whole file of wav"):
        isolated_inspection.inspect(clip)
