"""Downloads from a fake hub on this host, with the command that an operator runs, and how they fail."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from balancer.launch.download import download
from tests.support.checkpoint_files import LFS_POINTER, files_of, safetensors
from tests.support.fake_hub import MAIN, FakeHub
from tests.support.harness import TIMEOUT, environment
from worker.checkpoints.catalogue import CHECKPOINTS, CheckpointError, DownloadError, FileState, find, verify

CHORUS = str(Path(sys.executable).with_name("chorus"))
TURBO = CHECKPOINTS["turbo"]
FILES = files_of(TURBO)
ORIGINAL, PACK = CHECKPOINTS["multilingual-v3"], CHECKPOINTS["multilingual-es-es"]
BORROWED = ("ve.pt", "Cangjie5_TC.json", "conds.pt")
VE = "ve.safetensors"
LAST = "t3_turbo_v1.safetensors"
"""Small files come first."""
NO_SUCH_REPOSITORY = "the hub has no {url}, or it is private: set HF_TOKEN"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub(FILES | {"README.md": b"Read me."}) as hub:
        yield hub


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's home folder, for this process as well."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "hf"


def variables(hub: FakeHub, home: Path, **others: str) -> dict[str, str]:
    return environment() | hub.variables(home) | {"COLUMNS": "250"} | others


def models(hub: FakeHub, home: Path, *arguments: str, **others: str) -> subprocess.CompletedProcess[str]:
    """`chorus models …`, as the program that is installed."""
    return subprocess.run(
        [CHORUS, "models", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=variables(hub, home, **others),
        timeout=TIMEOUT,
    )


def snapshot(home: Path, commit: str = TURBO.revision, repository: str = TURBO.repository) -> Path:
    return home / "hub" / f"models--{repository.replace('/', '--')}" / "snapshots" / commit


def test_a_download(hub: FakeHub, home: Path) -> None:
    answer = models(hub, home, "download", "turbo")
    assert answer.returncode == 0, answer.stderr
    size = f"{sum(map(len, FILES.values())) / 1000:.1f} kB"
    assert f"downloading turbo's weights ({size}) from the hub, once, into {home / 'hub'}" in answer.stderr
    assert answer.stderr.splitlines()[-1] == f"turbo: ready, {size} in {snapshot(home)}"
    assert find(TURBO, model_dir=None, revision=None) == snapshot(home)
    assert {report.state for report in verify(TURBO, snapshot(home))} == {FileState.WHOLE}
    assert {path.name for path in snapshot(home).iterdir()} == set(FILES)
    assert len(hub.fetched) == len(FILES)


def test_a_second_download_needs_no_network(hub: FakeHub, home: Path) -> None:
    models(hub, home, "download", "turbo")
    hub.fetched.clear()
    for others in ({}, {"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:1"}):
        answer = models(hub, home, "download", "turbo", **others)
        assert answer.returncode == 0, answer.stderr
        assert "downloading" not in answer.stderr
        assert "turbo: ready" in answer.stderr
    assert not hub.fetched


def test_a_branch(hub: FakeHub, home: Path) -> None:
    assert models(hub, home, "download", "turbo", "--revision", "main").returncode == 0
    assert find(TURBO, model_dir=None, revision="main") == snapshot(home, MAIN)
    with pytest.raises(CheckpointError, match="not on this host"):
        find(TURBO, model_dir=None, revision=None)


def test_a_language_pack_borrows_the_originals_files(home: Path) -> None:
    own = snapshot(home, PACK.revision, PACK.repository)
    lender = snapshot(home, ORIGINAL.revision, ORIGINAL.repository)
    with FakeHub(files_of(PACK)) as hub:
        answer = models(hub, home, "download", PACK.engine)
        assert answer.returncode == 0, answer.stderr
        assert find(PACK, model_dir=None, revision=None) == own
        assert {path.name for path in lender.iterdir()} == set(BORROWED)
        assert all((own / name).samefile(lender / name) for name in BORROWED)
        assert {report.state for report in verify(PACK, own)} == {FileState.WHOLE}
        hub.fetched.clear()
        assert models(hub, home, "download", PACK.engine, HF_HUB_OFFLINE="1").returncode == 0
        assert not hub.fetched
        # Whatever becomes of the Original's files is seen, and mended.
        (lender / "ve.pt").resolve().unlink()
        with pytest.raises(CheckpointError, match=f"lack ve.pt; run: chorus models download {PACK.engine}"):
            find(PACK, model_dir=None, revision=None)
        (lender / "conds.pt").resolve().write_bytes(LFS_POINTER)
        assert models(hub, home, "download", PACK.engine).returncode == 0
        assert {name for name, _ in hub.fetched} == {"ve.pt", "conds.pt"}
        assert {report.state for report in verify(PACK, own)} == {FileState.WHOLE}


def test_a_broken_connection_is_resumed(hub: FakeHub, home: Path) -> None:
    hub.cut = {VE: 1}
    answer = models(hub, home, "download", "turbo")
    assert answer.returncode == 0, answer.stderr
    assert [name for name, _ in hub.fetched].count(VE) == 2
    assert {report.state for report in verify(TURBO, snapshot(home))} == {FileState.WHOLE}


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_download_is_resumed(hub: FakeHub, home: Path, ending: signal.Signals) -> None:
    hub.held = LAST
    process = subprocess.Popen(
        [CHORUS, "models", "download", "turbo"], env=variables(hub, home), stderr=subprocess.DEVNULL
    )
    try:
        assert hub.halfway.wait(TIMEOUT)
        process.send_signal(ending)  # the download of the file is on hold meanwhile
        assert process.wait(TIMEOUT) in (130, -ending)
    finally:
        process.kill()
    with pytest.raises(CheckpointError, match=f"lack {LAST}; run: chorus models download turbo"):
        find(TURBO, model_dir=None, revision=None)
    hub.held, hub.fetched = "", []
    answer = models(hub, home, "download", "turbo")
    assert answer.returncode == 0, answer.stderr
    assert [name for name, _ in hub.fetched] == [LAST]
    assert find(TURBO, model_dir=None, revision=None) == snapshot(home)


@pytest.mark.parametrize("damage", ["cut", "pointer", "bit"])
def test_damaged_files_are_downloaded_again(hub: FakeHub, home: Path, damage: str) -> None:
    models(hub, home, "download", "turbo")
    blob = (snapshot(home) / VE).resolve()
    content = bytearray(FILES[VE])
    content[-1] ^= 1
    blob.write_bytes({"cut": FILES[VE][:-1], "pointer": LFS_POINTER, "bit": bytes(content)}[damage])
    hub.fetched.clear()
    answer = models(hub, home, "download", "turbo")
    assert answer.returncode == 0, answer.stderr
    assert [name for name, _ in hub.fetched] == [VE]
    assert {report.state for report in verify(TURBO, snapshot(home))} == {FileState.WHOLE}


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (
            (HTTPStatus.UNAUTHORIZED, "GatedRepo"),
            "the hub requires a login: accept the terms at {url} and set HF_TOKEN",
        ),
        ((HTTPStatus.FORBIDDEN, "GatedRepo"), "the hub requires a login: accept the terms at {url} and set HF_TOKEN"),
        ((HTTPStatus.UNAUTHORIZED, "RepoNotFound"), NO_SUCH_REPOSITORY),
        ((HTTPStatus.NOT_FOUND, "RepoNotFound"), NO_SUCH_REPOSITORY),
        ((HTTPStatus.NOT_FOUND, "RevisionNotFound"), "the repository has no such revision"),
        ((HTTPStatus.UNAUTHORIZED, ""), "the hub denies access to {url}: check HF_TOKEN"),
        ((HTTPStatus.INTERNAL_SERVER_ERROR, ""), "the hub answered 500; try again later"),
    ],
)
def test_what_the_hub_refuses(hub: FakeHub, home: Path, refusal: tuple[HTTPStatus, str], message: str) -> None:
    hub.refusal = refusal
    answer = models(hub, home, "download", "turbo")
    assert answer.returncode == 1
    assert answer.stderr == (
        f"chorus: cannot download turbo's weights (ResembleAI/chatterbox-turbo at revision {TURBO.revision}): "
        f"{message.format(url=hub.url + '/ResembleAI/chatterbox-turbo')}\n"
    )


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:1"}, "no answer from http://127.0.0.1:1/ResembleAI/chatterbox-turbo ("),
        ({"HF_ENDPOINT": "nonsense"}, "no answer from nonsense/ResembleAI"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE forbids downloads"),
    ],
)
@pytest.mark.parametrize("revision", [TURBO.revision, "main"])
def test_no_network(hub: FakeHub, home: Path, others: dict[str, str], message: str, revision: str) -> None:
    answer = models(hub, home, "download", "turbo", "--revision", revision, **others)
    assert answer.returncode == 1
    assert message in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_branch_that_the_hub_refuses(hub: FakeHub, home: Path) -> None:
    hub.refusal = (HTTPStatus.UNAUTHORIZED, "GatedRepo")
    answer = models(hub, home, "download", "turbo", "--revision", "main")
    assert answer.returncode == 1
    assert "at revision main): the hub requires a login" in answer.stderr


def test_a_revision_that_is_none(hub: FakeHub, home: Path) -> None:
    answer = models(hub, home, "download", "turbo", "--revision", "v9")
    assert answer.returncode == 1
    assert "at revision v9): the repository has no such revision" in answer.stderr


def test_a_revision_without_the_files(hub: FakeHub, home: Path) -> None:
    del hub.files["merges.txt"], hub.files["conds.pt"]
    answer = models(hub, home, "download", "turbo")
    assert answer.returncode == 1
    assert f"ResembleAI/chatterbox-turbo at revision {TURBO.revision} has no merges.txt\n" in answer.stderr


def test_a_hub_whose_files_are_damaged(hub: FakeHub, home: Path) -> None:
    hub.files[VE] = safetensors()[:-1]
    answer = models(hub, home, "download", "turbo")
    assert answer.returncode == 1
    assert f"damaged: {VE} has" in answer.stderr


def test_a_page_that_is_no_hub(hub: FakeHub, home: Path) -> None:
    hub.page = b"<html>Log in to this network</html>"
    answer = models(hub, home, "download", "turbo")
    assert answer.returncode == 1
    assert "the hub's answer could not be used (" in answer.stderr
    assert "Traceback" not in answer.stderr


# In this process, where what happens can be arranged


def here(monkeypatch: pytest.MonkeyPatch, error: Exception) -> str:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(DownloadError) as caught:
        download(TURBO, revision=None, announce=lambda _: None)
    return str(caught.value)


def test_a_disk_that_is_full(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = here(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    assert message.endswith(
        f"the disk of {home / 'hub'} is full (No space left on device): free space, or set HF_HOME to another one"
    )


def test_a_cache_that_cannot_be_written(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = here(monkeypatch, PermissionError(errno.EACCES, "Permission denied", "/there"))
    assert message.endswith("Permission denied: /there")


def test_room_is_looked_for_before(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    announced: list[str] = []
    plan = [SimpleNamespace(filename=VE, file_size=3000, will_download=True, commit_hash=TURBO.revision)]
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: plan)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2999))
    with pytest.raises(DownloadError, match=r"is full \(3\.0 kB are needed, 3\.0 kB are free\)"):
        download(TURBO, revision=None, announce=announced.append)
    assert announced == []


def test_without_the_hubs_library(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DownloadError, match=r"needs huggingface_hub, which is not installed; run: scripts/serve "):
        download(TURBO, revision=None, announce=lambda _: None)


# On a terminal


def test_progress_is_shown_on_a_terminal(hub: FakeHub, home: Path) -> None:
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, 100))
    with subprocess.Popen(
        [CHORUS, "models", "download", "turbo"], env=variables(hub, home, TERM="xterm"), stdout=slave, stderr=slave
    ) as process:
        os.close(slave)
        shown = b""
        try:
            while piece := os.read(master, 65536):
                shown += piece
        except OSError:  # the other end is closed
            assert process.wait(TIMEOUT) == 0
    os.close(master)
    assert b"dry-run" not in shown
    assert b"100%" in shown
