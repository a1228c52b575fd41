"""One process at a time is in a block that a file locks, for as long as the others care to wait."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.support.harness import TIMEOUT
from worker.engines.chatterbox.kernels.file_lock import locked


def test_the_next_enters_when_the_first_has_left(tmp_path: Path) -> None:
    order: list[str] = []
    waits = threading.Event()

    def second() -> None:
        waits.set()
        with locked(tmp_path / "folder" / "file.lock") as failure:
            order.append(f"second, {failure}")

    with locked(tmp_path / "folder" / "file.lock") as failure:
        other = threading.Thread(target=second)
        other.start()
        assert waits.wait(TIMEOUT)
        other.join(0.2)
        order.append(f"first, {failure}")
    other.join(TIMEOUT)
    assert order == ["first, None", "second, None"]


def test_past_its_wait_it_enters_without_the_lock(tmp_path: Path) -> None:
    with locked(tmp_path / "file.lock"), locked(tmp_path / "file.lock", max_wait=0.1) as failure:
        assert isinstance(failure, TimeoutError)
        assert str(tmp_path / "file.lock") in str(failure)
    with locked(tmp_path / "file.lock", max_wait=0.1) as failure:
        assert failure is None


def test_without_a_folder_there_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with locked(tmp_path / "file" / "file.lock") as failure:
        assert isinstance(failure, OSError)
