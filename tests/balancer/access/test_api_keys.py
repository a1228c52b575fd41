from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from balancer.access.api_keys import ApiKey, KeysFileError, Role, digest_of, new_key, read_keys, update_keys, write_keys
from balancer.scheduling.priority import Priority
from tests.support.harness import ROOT

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


def test_a_key_without_a_role_is_a_clients(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text('{"keys": [{"name": "old", "digest": "' + "0" * 64 + '", "priority": "batch"}]}')
    (old,) = read_keys(file)
    assert old.role is Role.CLIENT
    write_keys(file, [old, key("ops", role="operator")])
    assert [found.role for found in read_keys(file)] == [Role.CLIENT, Role.OPERATOR]


def test_a_clients_key_is_written_as_versions_without_roles_read_it(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    write_keys(file, [key("shop")])
    assert "role" not in file.read_text()


def test_no_file_holds_no_keys(tmp_path: Path) -> None:
    assert read_keys(tmp_path / "none") == ()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("{", "the file"),
        ('{"keys": [{"name": "a"}]}', "digest"),
        ('{"keys": [{"name": "a b", "digest": "' + "0" * 64 + '"}]}', "name"),
        ('{"keys": [{"name": "a", "digest": "' + "0" * 64 + '", "concurrency": 0}]}', "concurrency"),
        ('{"keys": [{"name": "a", "digest": "' + "0" * 64 + '", "role": "king"}]}', "role"),
        ('{"key": []}', "key"),
    ],
)
def test_a_damaged_file_is_refused_with_the_reason(tmp_path: Path, content: str, fault: str) -> None:
    file = tmp_path / "keys.json"
    file.write_text(content)
    with pytest.raises(KeysFileError, match=fault):
        read_keys(file)


def test_two_keys_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two API keys have the same name"):
        write_keys(tmp_path / "keys.json", [key("a"), key("a", "x" * 20)])


@pytest.mark.parametrize("odd", ["fifo", "device", "folder", "huge"])
def test_a_file_that_is_none_is_refused_at_once(tmp_path: Path, odd: str) -> None:
    file = tmp_path / "keys.json"
    if odd == "fifo":
        os.mkfifo(file)
    elif odd == "device":
        file.symlink_to("/dev/zero")
    elif odd == "folder":
        file.mkdir()
    else:
        with file.open("wb") as sparse:
            sparse.truncate(2**30)
    with pytest.raises(KeysFileError, match="cannot be read"):
        read_keys(file)


CHANGES = """if True:
    import sys
    from pathlib import Path
    from balancer.access.api_keys import ApiKey, digest_of, update_keys
    file, number = Path(sys.argv[1]), sys.argv[2]
    sys.stdin.readline()
    for turn in range(5):
        name = f"key-{number}-{turn}"
        update_keys(file, lambda keys: (*keys, ApiKey(name=name, digest=digest_of(name))))
        if turn % 2:
            update_keys(file, lambda keys: [key for key in keys if key.name != name])
"""


def test_processes_that_change_the_file_at_once_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    processes = [
        subprocess.Popen([sys.executable, "-c", CHANGES, str(file), str(number)], stdin=subprocess.PIPE, cwd=ROOT)
        for number in range(8)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.close()
    assert [process.wait() for process in processes] == [0] * 8
    assert {key.name for key in read_keys(file)} == {
        f"key-{number}-{turn}" for number in range(8) for turn in (0, 2, 4)
    }


def test_a_change_that_fails_leaves_the_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    write_keys(file, [key("a")])
    with pytest.raises(ZeroDivisionError):
        update_keys(file, lambda keys: [key(str(1 // 0))])
    update_keys(file, lambda keys: (*keys, key("b", "x" * 20)))
    assert [found.name for found in read_keys(file)] == ["a", "b"]
