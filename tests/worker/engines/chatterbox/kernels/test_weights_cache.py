"""Packed weights are written by one process of a host, and mapped by it and by all others."""

from __future__ import annotations

import errno
import fcntl
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from worker.engines.chatterbox.kernels.packed_gemm import PackedLinearF32, PackedLinearInt8
from worker.engines.chatterbox.kernels.weights_cache import Arrays, packed, weights_cache


def layer(number: int) -> Arrays:
    return np.full((3, 5), number, np.int32), np.arange(number, number + 7, dtype=np.float32)


def fail() -> Arrays:
    raise AssertionError("packed although the file has it")


def take(file: Path, key: str, *packs: Callable[[], Arrays]) -> list[Arrays]:
    with weights_cache(file, key):
        return [packed(pack, 2) for pack in packs]


def mapped_files(address: int) -> str:
    """The file that lies at an address of this process."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(bound, 16) for bound in line.split()[0].split("-"))
        if first <= address < last:
            return line.split(maxsplit=5)[-1]
    raise AssertionError(f"nothing at {address}")


def same(ones: list[Arrays], others: list[Arrays]) -> bool:
    return all(
        np.array_equal(a, b) for one, other in zip(ones, others, strict=True) for a, b in zip(one, other, strict=True)
    )


def test_without_a_block_a_layer_packs_for_itself() -> None:
    assert same([packed(lambda: layer(1), 2)], [layer(1)])


def test_the_next_process_packs_nothing(tmp_path: Path) -> None:
    file = tmp_path / "below" / "model.weights"
    written = take(file, "a", lambda: layer(1), lambda: layer(2))
    read = take(file, "a", fail, fail)
    assert same(written, [layer(1), layer(2)])
    assert same(read, written)


def test_all_processes_map_one_file(tmp_path: Path) -> None:
    file = tmp_path / "model.weights"
    for arrays in (take(file, "a", lambda: layer(1)), take(file, "a", fail)):
        for array in arrays[0]:
            assert mapped_files(array.ctypes.data) == str(file)
            assert array.ctypes.data % 64 == 0


def test_what_is_written_to_an_array_does_not_reach_the_file(tmp_path: Path) -> None:
    file = tmp_path / "model.weights"
    take(file, "a", lambda: layer(1))[0][0][:] = 9
    assert same(take(file, "a", fail), [layer(1)])


def test_another_key_packs_anew(tmp_path: Path) -> None:
    file = tmp_path / "model.weights"
    before = take(file, "a", lambda: layer(1))
    assert same(take(file, "b", lambda: layer(2)), [layer(2)])
    assert same(take(file, "b", fail), [layer(2)])
    # A process that still runs keeps what it mapped.
    assert same(before, [layer(1)])


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    file = tmp_path / "model.weights"
    with pytest.raises(AssertionError):
        take(file, "a", lambda: layer(1), fail)
    assert [path.name for path in tmp_path.iterdir()] == ["model.lock"]


def test_a_damaged_file_is_written_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "model.weights"
    take(file, "a", lambda: layer(1), lambda: layer(2))
    file.write_bytes(file.read_bytes()[:-70])
    assert same(take(file, "a", fail, lambda: layer(2)), [layer(1), layer(2)])
    assert f"{file} is damaged" in caplog.text
    assert same(take(file, "a", lambda: layer(1), lambda: layer(2)), [layer(1), layer(2)])
    assert same(take(file, "a", fail, fail), [layer(1), layer(2)])


@pytest.mark.parametrize("content", [b"", b"not one of ours" * 10, b"\x93NUMPY\x09\x00"])
def test_another_program_s_file_is_replaced(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.weights"
    file.write_bytes(content)
    take(file, "a", lambda: layer(1))
    assert same(take(file, "a", fail), [layer(1)])


def test_where_nothing_can_be_written_a_process_packs_for_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    file = tmp_path / "file" / "model.weights"
    assert same(take(file, "a", lambda: layer(1)), [layer(1)])
    assert "cannot be written" in caplog.text


def test_without_locks_a_file_is_mapped_but_none_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system of a network."""
    file, other = tmp_path / "model.weights", tmp_path / "other.weights"
    take(file, "a", lambda: layer(1))

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert same(take(file, "a", fail), [layer(1)])
    assert not caplog.text
    assert same(take(other, "a", lambda: layer(2)), [layer(2)])
    assert not other.exists()
    assert "No locks available" in caplog.text


def test_a_damaged_file_that_cannot_be_removed_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model.weights"
    take(file, "a", lambda: layer(1), lambda: layer(2))
    file.write_bytes(file.read_bytes()[:-70])

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(Path, "unlink", refuse)
    assert same(take(file, "a", fail, lambda: layer(2)), [layer(1), layer(2)])


def test_a_full_disk_is_told_and_costs_nothing_but_memory(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    file = tmp_path / "model.weights"
    # A device whose every write fails for want of space.
    file.with_suffix(".new").symlink_to("/dev/full")
    with caplog.at_level(logging.WARNING):
        assert same(take(file, "a", lambda: layer(1)), [layer(1)])
    assert "No space left on device" in caplog.text
    assert not file.exists()


def test_while_one_packs_others_wait(tmp_path: Path) -> None:
    file = tmp_path / "model.weights"
    packing, go_on = threading.Event(), threading.Event()
    others: list[Arrays] = []

    def slow() -> Arrays:
        packing.set()
        assert go_on.wait(30)
        return layer(1)

    first = threading.Thread(target=take, args=(file, "a", slow))
    second = threading.Thread(target=lambda: others.extend(take(file, "a", fail)))
    first.start()
    assert packing.wait(30)
    second.start()
    go_on.set()
    first.join(30)
    second.join(30)
    assert same(others, [layer(1)])


@pytest.mark.parametrize("linear", [PackedLinearF32, PackedLinearInt8])
def test_a_layer_from_the_file_is_the_same(tmp_path: Path, linear: type[PackedLinearF32 | PackedLinearInt8]) -> None:
    weight, bias = torch.randn(70, 32), torch.randn(70)
    own = linear(weight, bias)
    layers = []
    for _ in range(2):
        with weights_cache(tmp_path / "model.weights", "a"):
            layers.append(linear(weight, bias))
    assert all(same([_arrays(one)], [_arrays(own)]) for one in layers)


def _arrays(layer: PackedLinearF32 | PackedLinearInt8) -> Arrays:
    return tuple(value for value in _values(layer) if isinstance(value, np.ndarray))


def _values(layer: PackedLinearF32 | PackedLinearInt8) -> list[object]:
    return [one for value in vars(layer).values() for one in (value if isinstance(value, tuple) else (value,))]
