"""The file with the secret of signed links."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from balancer.access.link_secret import read_or_make_secret


def test_a_secret_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    file = tmp_path / "data" / "link.secret"
    secret = read_or_make_secret(file)
    assert len(secret) == 64
    assert read_or_make_secret(file) == secret
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]
    assert read_or_make_secret(tmp_path / "link.secret") != secret


def test_processes_that_make_one_at_once_have_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(read_or_make_secret, [tmp_path / "link.secret"] * 32))
    assert len(found) == 1


def test_a_secret_that_is_too_short_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "link.secret"
    file.write_text("short\n")
    with pytest.raises(ValueError, match="fewer than 32 bytes; delete it"):
        read_or_make_secret(file)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "link.secret"
    folder.mkdir()
    with pytest.raises(OSError, match=r"link\.secret"):
        read_or_make_secret(folder)
