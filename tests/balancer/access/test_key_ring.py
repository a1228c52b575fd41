"""The keys of a running server, and what a fault in their file does."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from balancer.access import key_ring
from balancer.access.api_keys import ApiKey, digest_of, write_keys
from balancer.access.key_ring import RETRY_SECONDS, KeyRing
from tests.support.clock import Clock

KEY = "an-api-key-of-twenty-or-more"


def key(name: str) -> ApiKey:
    return ApiKey(name=name, digest=digest_of(KEY))


def test_a_ring_knows_the_keys_of_the_environment_and_their_digests() -> None:
    ring = KeyRing([KEY, f"sha256:{digest_of('another-key-of-somebody')}"])
    assert ring.key_required
    for known in (KEY, "another-key-of-somebody"):
        found = ring.find(known)
        assert found is not None
        assert found.name == f"key-{digest_of(known)[:8]}"
    for unknown in ("", "no-key", digest_of(KEY), KEY + " "):
        assert ring.find(unknown) is None


def test_without_keys_no_key_is_required(tmp_path: Path) -> None:
    assert not KeyRing(file=tmp_path / "keys.json").key_required


def test_added_and_revoked_keys_take_effect(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    ring = KeyRing(file=file)
    write_keys(file, [key("shop")])
    ring.refresh()
    assert ring.key_required
    found = ring.find(KEY)
    assert found is not None
    assert found.name == "shop"
    write_keys(file, [])
    ring.refresh()
    assert ring.find(KEY) is None
    assert ring.key_required, "revoking the last key lets nobody in"
    file.unlink()
    ring.refresh()
    assert ring.key_required


def test_the_keys_stay_valid_if_the_file_gets_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "keys.json"
    write_keys(file, [key("shop")])
    ring = KeyRing(file=file)
    file.write_text("{")
    os.utime(file, ns=(1, 1))
    ring.refresh()
    assert ring.find(KEY) is not None
    ring.refresh()
    assert ring.find(KEY) is not None
    assert caplog.text.count("requests need a key that was valid before") == 1


@pytest.mark.parametrize("content", ["{", '{"keys": [{"name": "a", "digest": "0"}]}', ""])
def test_a_file_with_a_fault_closes_the_server_until_it_is_mended(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys.json"
    ring = KeyRing(file=file)
    assert not ring.key_required
    file.write_text(content)
    ring.refresh()
    assert ring.key_required
    assert ring.find(KEY) is None
    assert str(file) in caplog.text
    write_keys(file, [key("shop")])
    ring.refresh()
    assert ring.find(KEY) is not None


def test_a_server_starts_closed_with_a_fault_and_with_its_other_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text("{")
    ring = KeyRing(["another-key-of-somebody"], file)
    assert ring.key_required
    assert ring.find(KEY) is None
    assert ring.find("another-key-of-somebody") is not None


def test_a_read_that_fails_once_is_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    write_keys(file, [key("shop")])
    target = tmp_path / "elsewhere.json"
    file.rename(target)
    clock = Clock()
    file.symlink_to(file.name)  # a loop: it cannot be opened
    ring = KeyRing(file=file, clock=clock)
    assert ring.key_required
    assert ring.find(KEY) is None
    file.unlink()
    file.symlink_to(target.name)
    clock.now += RETRY_SECONDS
    ring.refresh()
    assert ring.find(KEY) is not None


def test_a_fifo_in_its_place_is_not_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    ring = KeyRing(file=file)
    os.mkfifo(file)
    ring.refresh()
    assert ring.key_required


async def test_a_new_key_is_known_at_once(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    ring = KeyRing(file=file)
    write_keys(file, [key("shop")])
    assert ring.find(KEY) is None
    assert await ring.find_or_read("another-key-of-somebody") is None
    assert await ring.find_or_read(KEY) is not None


async def test_a_file_system_that_does_not_answer_stops_only_unknown_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_ring, "READ_SECONDS", 0.05)
    file = tmp_path / "keys.json"
    write_keys(file, [key("shop")])
    ring = KeyRing(file=file)
    hanging, answers = threading.Event(), threading.Event()

    def hang(_: Path) -> tuple[None, None]:
        hanging.set()
        answers.wait()
        return None, None

    with monkeypatch.context() as patched:
        patched.setattr(KeyRing, "_stat", staticmethod(hang))
        unknown = asyncio.create_task(ring.find_or_read("another-key-of-somebody"))
        await asyncio.to_thread(hanging.wait)
        assert ring.key_required
        assert await ring.find_or_read(KEY) is not None
        assert await unknown is None
    answers.set()
