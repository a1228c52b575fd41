from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from balancer.runtime.systemd import is_notified, notify, with_priority, writes_to_journal


@pytest.mark.parametrize("abstract", [False, True])
def test_assignments_arrive_as_lines_of_one_message(run_dir: Path, abstract: bool) -> None:
    address = f"@{run_dir}/notify" if abstract else str(run_dir / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address.replace("@", "\0"))
        notify("READY=1", "STATUS=1 of 2 workers ready", environ={"NOTIFY_SOCKET": address})
        assert systemd.recv(100) == b"READY=1\nSTATUS=1 of 2 workers ready"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nobody/listens"}])
def test_nobody_need_listen(environ: dict[str, str]) -> None:
    notify("READY=1", environ=environ)


def test_the_journal_is_known_by_its_socket(tmp_path: Path) -> None:
    with (tmp_path / "journal").open("wb") as journal, (tmp_path / "other").open("wb") as other:
        status = os.fstat(journal.fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert writes_to_journal(journal.fileno(), environ)
        assert not writes_to_journal(other.fileno(), environ)
        assert not writes_to_journal(journal.fileno(), {})
    assert not writes_to_journal(-1, environ)


def test_a_line_has_the_priority_of_its_level() -> None:
    assert with_priority("no room", "error") == "<3>no room"
    assert with_priority("a word", "unheard of") == "<6>a word"


def test_systemd_is_told_only_if_it_asks() -> None:
    assert is_notified({"NOTIFY_SOCKET": "/run/notify"})
    assert not is_notified({})
    assert not is_notified({"NOTIFY_SOCKET": ""})
