"""Odd files in the place of a regular one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from voices.regular_files import read_regular_file


def test_a_regular_file_is_read_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    assert read_regular_file(tmp_path / "file", 3) == read_regular_file(tmp_path / "link", 3) == b"abc"


def test_a_larger_file_is_refused_without_reading_it(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match="Larger than 64 KiB"):
        read_regular_file(tmp_path / "file", 2**16)


def test_a_file_whose_size_is_not_known_is_bounded() -> None:
    with pytest.raises(OSError, match="Larger than 0 KiB"):
        read_regular_file(Path("/proc/self/maps"), 10)


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="Not a regular file"):
        read_regular_file(tmp_path / "fifo", 100)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/tty"])
def test_a_link_to_a_device_is_refused(tmp_path: Path, device: str) -> None:
    (tmp_path / "link").symlink_to(device)
    with pytest.raises(OSError, match="Not a regular file"):
        read_regular_file(tmp_path / "link", 100)


def test_a_folder_and_a_loop_are_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(IsADirectoryError):
        read_regular_file(tmp_path, 100)
    with pytest.raises(OSError, match="symbolic links"):
        read_regular_file(tmp_path / "loop", 100)
