"""The socket at which a worker listens."""

from __future__ import annotations

import os
from pathlib import Path

from worker.unix_listener import listen


def test_listening_takes_the_place_of_what_was_left_there(run_dir: Path) -> None:
    path = run_dir / "worker-0.sock"
    path.with_name(f"worker-0.sock.{os.getpid()}").touch()
    with listen(path) as first:
        old = path.lstat().st_ino
        with listen(path) as second:
            assert path.lstat().st_ino != old
            assert first.fileno() != second.fileno()
    assert list(run_dir.iterdir()) == [path]
