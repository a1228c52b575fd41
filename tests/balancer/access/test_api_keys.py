from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from balancer.access.api_keys import ApiKey, KeyRing, KeysFileError, digest_of, new_key, read_keys, write_keys
from balancer.scheduling.priority import Priority

KEY = "an-api-key-of-twenty-or-more"


def key(name: str, secret: str = KEY, **changes: object) -> ApiKey:
    return ApiKey.model_validate({"name": name, "digest": digest_of(secret)} | changes)


def test_keys_are_random_and_long() -> None:
    assert new_key() != new_key()
    assert len(new_key()) > 64


def test_a_file_holds_digests_only_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "keys.json"
    keys = (key("shop", voices=("ada",), priority=Priority.BATCH, requests_per_minute=3), key("other", "x" * 20))
    write_keys(file, keys)
    assert read_keys(file) == keys
    assert KEY not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [found.name for found in file.parent.iterdir()] == ["keys.json"]


def test_no_file_holds_no_keys(tmp_path: Path) -> None:
    assert read_keys(tmp_path / "none") == ()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("{", "the file"),
        ('{"keys": [{"name": "a"}]}', "digest"),
        ('{"keys": [{"name": "a b", "digest": "' + "0" * 64 + '"}]}', "name"),
        ('{"keys": [{"name": "a", "digest": "' + "0" * 64 + '", "concurrency": 0}]}', "concurrency"),
        ('{"key": []}', "key"),
    ],
)
def test_a_damaged_file_is_refused_with_the_reason(tmp_path: Path, content: str, fault: str) -> None:
    file = tmp_path / "keys.json"
    file.write_text(content)
    with pytest.raises(KeysFileError, match=fault):
        KeyRing(file=file)


def test_two_keys_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two API keys have the same name"):
        write_keys(tmp_path / "keys.json", [key("a"), key("a", "x" * 20)])


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


def test_added_and_revoked_keys_take_effect_at_once(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    ring = KeyRing(file=file)
    write_keys(file, [key("shop")])
    assert ring.key_required
    found = ring.find(KEY)
    assert found is not None
    assert found.name == "shop"
    write_keys(file, [])
    assert ring.find(KEY) is None
    assert ring.key_required, "revoking the last key lets nobody in"
    file.unlink()
    assert ring.key_required


def test_the_keys_stay_valid_if_the_file_gets_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "keys.json"
    write_keys(file, [key("shop")])
    ring = KeyRing(file=file)
    file.write_text("{")
    os.utime(file, ns=(1, 1))
    assert ring.find(KEY) is not None
    assert ring.find(KEY) is not None
    assert caplog.text.count("the previous keys stay valid") == 1
