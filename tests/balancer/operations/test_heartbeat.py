from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import pytest

from balancer.operations import heartbeat
from tests.support.harness import TIMEOUT


async def count_above(folder: Path, least: int) -> int:
    """This process's count, once it is larger than `least`."""
    async with asyncio.timeout(TIMEOUT):
        while (beats := heartbeat.read_beats(folder)).get(os.getpid(), 0) <= least:
            await asyncio.sleep(0.05)
    assert beats.keys() == {os.getpid()}
    return beats[os.getpid()]


async def test_it_counts_while_the_loop_runs(tmp_path: Path) -> None:
    task = asyncio.create_task(heartbeat.beat(tmp_path, "balancer"))
    first = await count_above(tmp_path, 0)
    assert await count_above(tmp_path, first) > first
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("content", [b"", b"short", bytes(17)])
def test_a_file_that_is_being_written_is_left_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / f"balancer{heartbeat.SUFFIX}").write_bytes(content)
    (tmp_path / f"balancer-next{heartbeat.SUFFIX}").write_bytes((7).to_bytes(8, "little") + (3).to_bytes(8, "little"))
    assert heartbeat.read_beats(tmp_path) == {7: 3}


def test_without_files_there_are_no_beats(tmp_path: Path) -> None:
    assert heartbeat.read_beats(tmp_path / "missing") == {}
