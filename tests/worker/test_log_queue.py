from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.support.harness import TIMEOUT, wait_until
from worker.log_queue import LineWriter

LINE = b"x" * 1023 + b"\n"


class Pipe(NamedTuple):
    reading: int
    writing: int


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe(*os.pipe())
    yield pipe
    os.close(pipe.reading)


def read_lines(pipe: Pipe, until: bytes) -> list[bytes]:
    data = b""
    while until not in data:
        data += os.read(pipe.reading, 65_536)
    return data.splitlines()


def writer_on(pipe: Pipe, max_bytes: int = 100 * len(LINE)) -> LineWriter:
    return LineWriter(pipe.writing, lambda dropped: b"%d dropped\n" % dropped, max_bytes=max_bytes)


def test_lines_arrive_in_their_order(pipe: Pipe) -> None:
    writer = writer_on(pipe)
    for number in range(100):
        writer.write(b"%d\n" % number)
    writer.flush(TIMEOUT)
    assert read_lines(pipe, b"99\n") == [b"%d" % number for number in range(100)]


def test_without_a_reader_lines_are_dropped_and_counted_and_nobody_waits(pipe: Pipe) -> None:
    writer = writer_on(pipe)
    for _ in range(1000):
        writer.write(LINE)
    assert writer.dropped >= 1000 - 2 * 100 - 64, "a pipe of 64 KiB and twice the buffer are not dropped"
    dropped = writer.dropped
    lines = read_lines(pipe, b" dropped\n")
    told = [line for line in lines if line.endswith(b" dropped")]
    assert told == [b"%d dropped" % dropped]
    writer.write(b"last\n")
    assert read_lines(pipe, b"last\n")[-1] == b"last"


def test_flush_waits_for_a_reader_only_so_long(pipe: Pipe) -> None:
    writer = writer_on(pipe)
    for _ in range(100):
        writer.write(LINE)
    writer.flush(0.05)
    # Only now are they read: the pipe holds fewer than there are.
    missing = 100 * len(LINE)
    while missing:
        missing -= len(os.read(pipe.reading, missing))


def test_a_reader_that_has_gone_costs_its_lines() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    writer = writer_on(Pipe(reading, writing))
    writer.write(LINE)
    wait_until(lambda: writer.dropped == 1)
    os.close(writing)
