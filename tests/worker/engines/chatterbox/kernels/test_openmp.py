"""Parts of a kernel's work in the threads that PyTorch computes in: each once, and no fault lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from worker.engines.chatterbox.kernels import openmp


@pytest.fixture(params=["of PyTorch's library", "of our own"], autouse=True)
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param == "of our own":
        monkeypatch.setattr(openmp, "_library", lambda: None)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_each_part_is_done_once(count: int) -> None:
    done: list[int] = []
    openmp.run(done.append, count)
    assert sorted(done) == list(range(count))


def test_parts_are_done_at_once() -> None:
    meeting = threading.Barrier(2, timeout=30)
    met: list[int] = []

    def part(_: int) -> None:
        meeting.wait()
        met.append(threading.get_native_id())

    openmp.run(part, 2)
    assert len(set(met)) == 2


def test_what_a_part_raises_is_raised_and_the_next_run_is_as_ever() -> None:
    done: list[int] = []

    def part(number: int) -> None:
        if number == 1:
            raise ValueError("the second part")
        done.append(number)

    with pytest.raises(ValueError, match="the second part"):
        openmp.run(part, 2)
    assert done == [0]
    openmp.run(done.append, 2)
    assert sorted(done) == [0, 0, 1]


def test_between_pytorchs_own_work() -> None:
    torch.set_num_threads(2)
    weight, states = torch.randn(300, 200), torch.randn(500, 200)
    expected = states @ weight.t()
    out = torch.zeros_like(expected)

    def part(number: int) -> None:
        rows = slice(250 * number, 250 * (number + 1))
        out[rows] = expected[rows] * 2

    for _ in range(50):
        openmp.run(part, 2)
        assert torch.equal(out, expected * 2)
        assert torch.equal(states @ weight.t(), expected)
        out.zero_()
